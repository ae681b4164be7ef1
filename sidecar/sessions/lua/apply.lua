#!lua
-- apply.lua: applies one observation or signal, all of it or nothing.
--
-- KEYS[1]  the tenant's prefix, sidecar:{tenant}
-- ARGV[1]  observation | signal
-- ARGV[2]  producer      ARGV[3] sequence      ARGV[4] that producer's preceding sequence (0: none, or given up)
-- ARGV[5]  most entries in the outbox          ARGV[6] life of the producer's mark, ms
-- ARGV[7]  the fact as JSON (facts.py says which fields)
-- ARGV[8]  whose mark need not be asked: the replica's, which applies its own facts in order ('': ask all)
-- ARGV[9]  the generation that the caller knows ('': none)
-- ARGV[10] event time, ms: an observation that ended after this may be told to wait for other replicas ('': none may)
-- returns  {status, mark, session id, state, reason, where it went: "session root merged …" (ids),
--           "session revision state" of each event posted …}
--   applied    written; mark is now this sequence
--   duplicate  applied before (by the mark, or by the signal's source and id); with where it went, if it is one of the
--              producer's last observations: an answer that was lost on its way is given again
--   waiting    a signal whose session is not known yet: kept until it is
--   late       a signal whose session is forgotten already, and whose conversation has no other: without effect
--   ambiguous  a signal by an id that the answers of several conversations made: without effect
--   rewind     Redis is behind, or of another generation: mark is what it has; nothing written
--   early      which session it belongs to may depend on what another replica has yet to apply; nothing written
--   full       the outbox has no room for what this would post; nothing written
--   refused    the fact cannot be applied, ever (reason); only the mark is written

local kind, producer, sequence, previous = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local outbox_max, mark_ttl, body, own = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local patient_from = tonumber(ARGV[10]) or math.huge

-- The signals that wait under a name by which the session has just become known.
local function take_waiting(work, name)
  local list = key('waiting', name)
  local signals = {}
  for _, raw in ipairs(redis.call('LRANGE', list, 0, -1)) do
    work.taken[list] = true
    table.insert(signals, cjson.decode(raw))
  end
  return signals
end

local function apply_effect(work, session, effect, at, origin)
  name_customer(work, session, effect.customer)
  if effect.event then
    local cause = {
      rule = effect.rule, kind = effect.kind, event = effect.event, reason = effect.reason, outcome = effect.outcome,
      confirmation = effect.confirmation, digest = effect.digest, attributes = effect.attributes,
      what = origin and 'signal' or 'rule', source = origin and origin.source, id = origin and origin.id,
      claimed_at = origin and origin.claimed_at,
    }
    perform(work, session, advance(session, effect.event, at), at, cause)
    return
  end
  if is_open(session) then
    merge_attributes(work, session, effect.attributes)
  end
  note(work, session, { what = origin and 'signal' or 'rule', at = at, rule = effect.rule, kind = effect.kind,
    digest = effect.digest, source = origin and origin.source, id = origin and origin.id })
end

-- The sessions that a signal is for: one named by id; else the conversation's newest, and for what takes money back
-- every one that is open or can still be revised. None with true: its id is that of several conversations.
local function targets(work, signal)
  if signal.session_id then
    return { find(work, signal.session_id) }
  end
  local session, several = addressed(work, signal)
  if not session then
    return {}, several
  end
  local takes_back = signal.effect.event == 'escalate' or signal.effect.event == 'unresolve'
  local all = siblings(work, session.root, takes_back and LIMITS.siblings)
  local chosen = {}
  if takes_back then
    for _, other in ipairs(all) do
      if is_open(other) or QUESTIONS.window(other, signal.at_ms) == 'open' then
        table.insert(chosen, other)
      end
    end
  end
  return #chosen > 0 and chosen or { all[1] or session }
end

local function apply_signal(work, signal, sessions)
  for _, session in ipairs(sessions) do
    fire_due(work, session, signal.at_ms, own)
    apply_effect(work, session, signal.effect, signal.at_ms, signal)
  end
end

-- In the order of arrival, whatever names they waited under: what was taken back stays taken back.
local function apply_waiting(work, signals, now)
  for i, signal in ipairs(signals) do
    signal.place = i
  end
  table.sort(signals, function(one, other)
    return one.at_ms < other.at_ms or (one.at_ms == other.at_ms and one.place < other.place)
  end)
  for _, signal in ipairs(signals) do
    if now - signal.at_ms > LIMITS.waiting_days * DAY then
      count(work, 'waiting_expired')
    else
      apply_signal(work, signal, targets(work, signal))
      count(work, 'waiting_applied')
    end
  end
end

-- Makes every key of the exchange lead to the session; returns the signals that waited for one of them.
local function register(work, session, o, opened)
  local signals = {}
  local ids = { opened and session.id or nil }
  for id in pairs(work.gone) do
    table.insert(ids, id) -- what waits for a part of it waits for it
  end
  table.sort(ids)
  local function take(name)
    for _, signal in ipairs(take_waiting(work, name)) do
      table.insert(signals, signal)
    end
  end
  for _, id in ipairs(ids) do
    take(id)
  end
  work.registered[session.id] = work.registered[session.id] or {}
  work.used[session.id] = work.used[session.id] or {}
  local done = {}
  local function lead(k, borrowed)
    local current = not done[k.digest] and session_of_alias(work, k.digest)
    if done[k.digest] or (current and current.id == session.id) then
      table.insert(work.used[session.id], k.digest)
    elseif current and is_open(current) then
      count(work, 'keys_of_other_sessions')
    elseif not current or (is_open(session) and not borrowed) then
      work.aliases[k.digest] = session.id
      table.insert(work.registered[session.id], k.digest)
      take(k.digest)
    end
    done[k.digest] = true
    local names, place = session.names or {}, k.source or k.digest
    if k.kind == 'conversation' and work.aliases[k.digest] == session.id and not names[place] then
      names[place], session.names = k.digest, names
      change(work, session)
    end
  end
  local function lead_made_up(k, mark)
    if not done[k.digest] and register_made_up(work, session, o, k, mark) then
      take(k.digest)
    end
    done[k.digest] = true
  end
  for _, k in ipairs(o.keys) do
    if is_made_up(k) then
      lead_made_up(k, 'h')
    else
      lead(k, o.conversation and k.kind ~= 'conversation') -- a named conversation takes over names, and no more
    end
  end
  for _, k in ipairs(o.made) do
    lead_made_up(k, 'm')
  end
  return signals
end

-- What only the trace leads here is the agent's doing: no user has come back.
local function is_return(session, o, fresh, how)
  return not o.touch and how ~= 'trace' and o.started_ms >= session.finalized and (not o.api or #fresh > 0)
end

local function trail(work, session, o, decision)
  if decision.action == 'follow' then
    session.last = math.max(session.last, o.at_ms)
    change(work, session)
  end
  if not o.touch then
    count(work, 'trailing')
    note(work, session, { what = 'trailing', at = o.at_ms, api = o.api, digests = o.digests, aborted = o.aborted })
  end
end

-- The session that the exchange belongs to, opened if need be. Returns session, opened, trailing.
local function settle_session(work, o, session, fresh, how, root)
  if not session then
    if not o.opens or (o.touch and #o.keys == 0) then
      return nil
    end
    return open_session(work, o, root), true, false
  end
  if is_open(session) then
    return session, false, false
  end
  local event, at = 'activity', o.at_ms
  -- What was applied to this very session before did not come after its end.
  if is_return(session, o, fresh, how) and not (o.session and find(work, o.session) == session) then
    event, at = 'return', o.started_ms
  end
  local decision = advance(session, event, at)
  if decision.action ~= 'new_session' then
    trail(work, session, o, decision)
    return session, false, true
  end
  local cause = { what = 'return', rule = 'on_return', kind = 'return', event = 'return', reason = 'the user came back',
    digest = o.digests.request }
  if decision.state ~= session.state then
    decision.action = 'revise'
  end
  perform(work, session, decision, at, cause)
  return open_session(work, o, session.root), true, false
end

-- What was applied before goes where it went then, whatever the keys say by now: the facts of other replicas may come
-- in another order. Returns the session (nil: it opens again), and the conversation that one to be opened belongs to.
local function replayed(work, o, session, returns)
  local known_one = find(work, o.session)
  if known_one then
    return known_one, nil
  end
  if session and returns and not is_open(session) and session.root == o.root then
    return session, nil
  end
  return nil, o.root
end

-- Returns the session, or nil when there is none; and true when it is too early to say.
local function observe(work, o)
  local session, how, certain = locate(work, o)
  if not certain and not o.session and o.at_ms > patient_from and not passed(work, o.started_ms, own) then
    return nil, true
  end
  if session then
    fire_due(work, session, o.started_ms, own)
  end
  local takes = takes_up(work, session, o)
  local fresh, room = unseen_messages(work, session, o, session, takes)
  local returns = session and not is_open(session) and is_return(session, o, fresh, how)
  if returns then
    -- A key of an old session in a conversation that has gone on since: what is new belongs to the newest.
    session = siblings(work, session.root)[1] or session
    fire_due(work, session, o.started_ms, own)
  end
  local located, root = session, nil
  if o.session then
    session, root = replayed(work, o, session, returns)
  end
  if not o.complete then
    count(work, 'incomplete')
  end
  for name, by in pairs(o.over or {}) do
    count(work, name, by)
  end
  local opened, trailing
  session, opened, trailing = settle_session(work, o, session, fresh, how, root)
  if not session then
    register_failure(work, o)
    count(work, 'unplaced')
    return nil
  end
  session = o.session and merge_again(work, session, o) or merge_all(work, session, o, own)
  -- A session is judged by the rules under which it opened, whatever plan is in force by now.
  o.effects = o.former and o.former[session.terms.digest] or o.effects
  fresh, room = unseen_messages(work, session, o, located or not opened, takes)
  if #fresh > 0 and not o.touch then
    work.seen[session.root] = work.seen[session.root] or {}
    table.insert(work.seen[session.root], { members = fresh, room = room })
    change(work, session)
  end
  if not o.touch then
    count_wiring(work, o, how or 'nothing')
  end
  if not trailing then
    perform(work, session, advance(session, 'activity', o.at_ms), o.at_ms, {})
    session.last = math.max(session.last, o.at_ms)
    session.started = math.min(session.started, o.started_ms)
    if not o.touch then
      count_exchange(work, session, o, fresh, room, how)
    end
  end
  local before = o.touch and {} or count_calls(work, session, o, trailing)
  local signals = register(work, session, o, opened)
  register_text(work, session, located, o, opened)
  if #work.registered[session.id] > 0 then
    change(work, session)
  end
  apply_waiting(work, signals, o.at_ms)
  for _, effect in ipairs(o.effects) do
    if not before[effect.call] then
      apply_effect(work, session, effect, o.at_ms)
    end
  end
  return session
end

-- The whole of one signal: {status, session}.
local function receive(work, signal)
  local name = key('signal', redis.sha1hex(#signal.source .. ':' .. signal.source .. signal.id))
  work.signal = name
  if redis.call('EXISTS', name) == 1 then
    count(work, 'signals_duplicate')
    return 'duplicate', nil
  end
  local sessions, several = targets(work, signal)
  if #sessions > 0 then
    apply_signal(work, signal, sessions)
    return 'applied', sessions[1]
  end
  if several then
    count(work, 'signals_ambiguous')
    return 'ambiguous', nil
  end
  if signal.alias and redis.call('EXISTS', key('alias', signal.alias), key('text', signal.alias)) > 0 then
    count(work, 'signals_late')
    return 'late', nil
  end
  local list = key('waiting', signal.session_id or signal.alias)
  if redis.call('LLEN', list) >= LIMITS.waiting_over then
    error('too many signals wait for this session', 0)
  end
  table.insert(work.waiting, { name = list, body = body })
  count(work, 'signals_waiting')
  return 'waiting', nil
end

local function decide(work)
  local fact = cjson.decode(body)
  local status, session = 'applied', nil
  if kind == 'observation' then
    local early
    session, early = observe(work, fact)
    if early then
      return { 'early' }
    end
  else
    status, session = receive(work, fact)
  end
  settle_at_once(work)
  return { status, session }
end

local mark_name, went_name = key('applied', producer), key('went', producer)
local mark = tonumber(redis.call('GET', mark_name) or '0')
if sequence <= mark then
  local told_before = redis.call('ZRANGEBYSCORE', went_name, int(sequence), int(sequence))[1]
  local went = told_before and string.match(told_before, '^%d+ (.*)$') or ''
  return { 'duplicate', int(mark), string.match(went, '^%S*'), '', '', went }
end
-- In new data even a producer's first fact is too early: what its journal had before it has to come first.
local forgotten = ARGV[9] ~= '' and redis.call('GET', key('generation')) ~= ARGV[9]
if previous > mark or forgotten then
  return { 'rewind', int(mark), '', '', '', '' }
end

-- Facts are counted where their mark is set: the applier tells by it whether the data went back to an earlier state.
local function advance_mark()
  redis.call('SET', mark_name, int(sequence), 'PX', mark_ttl)
  redis.call('HINCRBY', key('counters'), 'facts', 1)
end

local work = new_work()
local ok, result = pcall(decide, work)
if not ok then
  local reason = type(result) == 'table' and result.err or tostring(result)
  redis.call('HINCRBY', key('counters'), 'refused', 1)
  advance_mark()
  return { 'refused', int(sequence), '', '', reason, '' }
end
if result[1] == 'early' then
  return { 'early', int(mark), '', '', '', '' }
end
if not fits(work, outbox_max) then
  return { 'full', int(mark), '', '', '', '' }
end
commit(work)
if work.signal then
  redis.call('SET', work.signal, producer .. ':' .. int(sequence), 'PX', int(LIMITS.signal_days * DAY), 'NX')
end
advance_mark()
local session = result[2]
local merged = {}
for id in pairs(work.gone) do
  table.insert(merged, id)
end
table.sort(merged)
local went = table.concat(session and { session.id, session.root, unpack(merged) } or {}, ' ')
if kind == 'observation' and went ~= '' then
  redis.call('ZADD', went_name, int(sequence), int(sequence) .. ' ' .. went)
  redis.call('ZREMRANGEBYRANK', went_name, 0, -LIMITS.went - 1)
  redis.call('PEXPIRE', went_name, int(LIMITS.waiting_days * DAY))
end
return { result[1], int(sequence), session and session.id or '', session and session.state or '', '', went,
  unpack(told(work)) }
