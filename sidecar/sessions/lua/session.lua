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

local function finalize(work, session, decision, at)
  session.state, session.deadline, session.finalized = decision.state, 0, at
  session.ended, session.revision, session.held = session.last, 0, decision.held
  work.finalized[session.id] = true
  count(work, 'open', -1)
  count(work, 'finalized:' .. session.state)
  post(work, session, at)
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

local function open_session(work, o, root)
  local number = tonumber(redis.call('GET', key('number', o.base)) or '0')
  local id
  repeat
    number = number + 1
    id = 'ses_' .. redis.sha1hex(o.base .. ':' .. int(number))
  until redis.call('EXISTS', key('session', id)) == 0
  local session = {
    id = id, base = o.base, number = number, root = root or id, tenant = o.tenant, conversation = o.conversation,
    state = 'AI_HANDLING', deadline = 0, started = o.started_ms, last = o.at_ms, finalized = 0, revision = -1,
    terms = o.terms, turns = 0, llm_calls = 0, tool_calls = 0, models = {}, input_tokens = 0, output_tokens = 0,
    attributes = {}, attribute_count = 0, evidence = {}, complete = true, shadow = o.shadow, held = false,
    reason = '', omitted = 0,
  }
  work.sessions[id] = session
  table.insert(work.opened, session)
  count(work, 'opened')
  count(work, 'open')
  note(work, session, { what = 'opened', at = o.started_ms, to = session.state })
  return session
end
