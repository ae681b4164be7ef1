-- session.lua: carries out what `advance` decided. Nothing here writes to Redis; see work.lua.

-- What a resolution is called and how sure it is. The first name stays until the resolution is taken back.
local function claim(session, cause)
  session.outcome = session.outcome or cause.outcome or OUTCOMES.RESOLVED
  session.confirmation = cause.confirmation or 'CONFIRMED'
end

local function disclaim(session)
  session.outcome, session.confirmation, session.held = nil, nil, false
end

local function prove(work, session, cause, at)
  if #session.evidence < LIMITS.evidence then
    table.insert(session.evidence, { at = at, rule = cause.rule, kind = cause.kind, digest = cause.digest or '' })
  else
    count(work, 'evidence_dropped')
  end
end

local function merge_attributes(work, session, attributes)
  for name, value in pairs(attributes or {}) do
    if session.attributes[name] == nil then
      if session.attribute_count >= LIMITS.attributes then
        count(work, 'attributes_dropped')
      else
        session.attribute_count = session.attribute_count + 1
        session.attributes[name] = value
      end
    else
      session.attributes[name] = value
    end
  end
end

local function name_customer(work, session, customer)
  if not customer or not is_open(session) then
    return
  end
  if not session.customer then
    session.customer = customer
  elseif session.customer ~= customer then
    count(work, 'customer_conflicts')
  end
end

-- A user's turn that is seen on both sides of the agent counts once. The user's side tells how many there were, where
-- it is seen; but its exchange ends after those that it causes, so one turn may be ahead on the model's side.
local function sides_of(session)
  return session.sides or { user = 0, model = session.turns }
end

local function turns_of(session)
  local sides = sides_of(session)
  if sides.user == 0 then
    return sides.model
  end
  return math.max(sides.user, math.min(sides.model, sides.user + 1))
end

local function add_models(work, session, models)
  for _, model in ipairs(models) do
    local listed = false
    for _, other in ipairs(session.models) do
      listed = listed or other == model
    end
    if not listed and #session.models < LIMITS.models then
      table.insert(session.models, model)
    elseif not listed then
      count(work, 'models_over')
    end
  end
end

-- Within what Lua's JSON writes as a whole number: 14 digits.
local function add_tokens(work, session, from)
  for _, name in ipairs({ 'input_tokens', 'output_tokens' }) do
    local sum = session[name] + from[name]
    if sum > LIMITS.tokens then
      count(work, 'tokens_over')
    end
    session[name] = math.min(sum, LIMITS.tokens)
  end
end

local function finalize(work, session, decision, at)
  session.state, session.deadline, session.finalized = decision.state, 0, at
  session.ended, session.revision, session.held = session.last, 0, decision.held
  work.finalized[session.id] = true
  count(work, 'open', -1)
  count(work, 'finalized:' .. session.state)
  post(work, session, at)
  local hour = math.floor(session.posted / HOUR)
  work.hours[hour] = (work.hours[hour] or 0) + 1
end

local function revise(work, session, decision, at)
  count(work, 'finalized:' .. session.state, -1)
  count(work, 'finalized:' .. decision.state)
  count(work, 'revised')
  session.state, session.revision = decision.state, session.revision + 1
  post(work, session, at)
end

-- The revision that an action posts; nil when it posts none.
local function revision_after(session, action)
  if action == 'finalize' or action == 'revise' then
    return session.revision + 1
  end
  return nil
end

-- Carries out `decision`. cause: {rule, kind, reason, outcome, confirmation, digest, attributes}. It is noted before it is
-- posted, so that what is posted carries the digest of its own entry.
local function perform(work, session, decision, at, cause)
  local action, from = decision.action, session.state
  if action == 'restart' then
    session.deadline = decision.deadline
    change(work, session)
    return
  end
  if action == 'late' then
    count(work, 'late')
  end
  local moves = action == 'move' or action == 'finalize' or action == 'revise'
  if is_open(session) or action == 'revise' then
    if cause.event ~= 'settle_timeout' then
      prove(work, session, cause, at)
    end
    merge_attributes(work, session, cause.attributes)
  end
  if moves then
    if decision.assumed then
      claim(session, { confirmation = 'ASSUMED' })
    elseif decision.state == 'RESOLVED_PENDING' or (decision.state == 'RESOLVED' and action == 'revise') then
      claim(session, cause)
    elseif decision.state ~= 'RESOLVED' then
      disclaim(session)
    end
    if cause.reason and cause.reason ~= '' then
      session.reason = cause.reason
    end
  end
  note(work, session, {
    what = cause.what or cause.kind, at = at, rule = cause.rule, kind = cause.kind, event = cause.event, action = action,
    from = from, to = moves and decision.state or from, digest = cause.digest, reason = cause.reason,
    source = cause.source, id = cause.id, claimed_at = cause.claimed_at, revision = revision_after(session, action),
  })
  if action == 'move' then
    session.state, session.deadline = decision.state, decision.deadline
  elseif action == 'finalize' then
    finalize(work, session, decision, at)
  elseif action == 'revise' then
    revise(work, session, decision, at)
  end
  if moves then
    announce(work, session, at, from)
  end
end

local TIMEOUT_REASONS = { idle_timeout = 'no activity within the timeout' }

-- Fires the timer that runs in the session's state, as of its deadline.
local function fire(work, session)
  local event, at = TIMERS[session.state].event, session.deadline
  perform(work, session, advance(session, event, at), at, {
    what = 'timer', rule = event, kind = 'timeout', event = event, reason = TIMEOUT_REASONS[event],
  })
end

-- A resolution without settling time, and every escalation, is final once the fact that brought it is applied.
local function settle_at_once(work)
  for _, session in ipairs(work.order) do
    local timer = TIMERS[session.state]
    if timer and timer.event == 'settle_timeout' and timer_ms(session.state, session.terms) == 0 then
      fire(work, session)
    end
  end
end

-- Whether every live producer but `own` (whose facts come in order) has applied all it knew up to `at`.
local function passed(work, at, own)
  -- Of the two least marks one at least is another's.
  work.marks = work.marks or redis.call('ZRANGE', key('marks'), 0, 1, 'WITHSCORES')
  for i = 1, #work.marks, 2 do
    if work.marks[i] ~= own and tonumber(work.marks[i + 1]) < at then
      return false
    end
  end
  return true
end

-- A deadline that lay before this fact fires first, so that a replay decides as the live run did.
local function fire_due(work, session, at, own)
  if is_open(session) and session.deadline <= at and passed(work, session.deadline, own) then
    fire(work, session)
  end
end

-- The running number that gives a session of `base` this id; 0 when none does (it was opened by another observation).
local function number_of(base, id)
  for number = 1, LIMITS.siblings do
    if 'ses_' .. redis.sha1hex(base .. ':' .. int(number)) == id then
      return number
    end
  end
  return 0
end

-- A new session of the conversation `root` (nil: of one of its own). What was applied before opens under the id that it
-- had then, in whatever order the replicas' journals are applied again.
local function open_session(work, o, root)
  local last = tonumber(redis.call('GET', key('number', o.base)) or '0')
  local number, id = last, o.session
  if id then
    number = math.max(number_of(o.base, id), last)
  else
    repeat
      number = number + 1
      id = 'ses_' .. redis.sha1hex(o.base .. ':' .. int(number))
    until redis.call('EXISTS', key('session', id), key('merged', id)) == 0
  end
  local session = {
    id = id, base = o.base, number = number, root = root or id, tenant = o.tenant, conversation = o.conversation,
    state = 'AI_HANDLING', deadline = 0, started = o.started_ms, last = o.at_ms, finalized = 0, revision = -1,
    terms = o.terms, turns = 0, sides = { user = 0, model = 0 }, llm_calls = 0, tool_calls = 0, models = {},
    input_tokens = 0, output_tokens = 0, attributes = {}, attribute_count = 0, evidence = {}, complete = true,
    shadow = o.shadow, held = false, reason = '', omitted = 0, names = {},
  }
  for _, k in ipairs(o.keys) do
    if k.kind == 'trace' then
      session.trace = k.digest
    end
  end
  work.sessions[id] = session
  table.insert(work.opened, session)
  count(work, 'opened')
  count(work, 'open')
  note(work, session, { what = 'opened', at = o.started_ms, to = session.state })
  announce(work, session, o.started_ms)
  return session
end
