-- stitch.lua: which session an observation belongs to, and which open sessions turn out to be one. Nothing here writes
-- to Redis; see work.lua.
--
-- An id leads to one session (alias:<digest>). A text leads to every session that came by it (text:<digest>, a hash:
-- session id → mark, time in ms, tip), since conversations may look alike. The marks:
--   e  an open end: the conversation stood there and nothing has followed, or the request was sent and not answered
--   p  passed: something has followed, or the request was answered; tip: where the conversation stood then
--   w  wanted: a session began with a request that follows this, and nobody was known to have answered so
--   f  failed: a first request that opened no session (no id then, but who sent it); it may be sent again
-- What continues takes an open end; so of conversations that look alike each continuation finds one of its own.

local function text_value(mark, at, tip)
  return mark .. int(at) .. ' ' .. (tip or '')
end

-- The sessions that came by a text: {{id, mark, at, tip} …}.
local function entries(work, digest)
  if not work.entries[digest] then
    local found, raw = {}, redis.call('HGETALL', key('text', digest))
    for i = 1, #raw, 2 do
      local mark, at, tip = string.match(raw[i + 1], '^(%a)(%d+) (.*)$')
      table.insert(found, { id = raw[i], mark = mark, at = tonumber(at), tip = tip })
    end
    table.sort(found, function(one, other)
      return one.at < other.at or (one.at == other.at and one.id < other.id)
    end)
    work.entries[digest] = found
  end
  return work.entries[digest]
end

local function is_named(session)
  return session.conversation ~= nil or (session.names ~= nil and next(session.names) ~= nil)
end

-- Whether an id that stands before the exchange's key number `upto` is another one in the session: two conversations.
local function held_apart(o, session, upto)
  for i, k in ipairs(o.keys) do
    if i >= upto or k.kind ~= 'conversation' then
      return false
    end
    local other = session.names and session.names[k.source or k.digest]
    if other and other ~= k.digest then
      return true
    end
  end
  return false
end

-- Whether a key may lead the exchange to the session: nothing joins what something stronger holds apart.
local function may_join(o, session, kind, number)
  if kind == 'conversation' then
    return not held_apart(o, session, number)
  end
  return not (o.conversation and is_named(session))
end

-- Texts may lead to the session: of two customers who say the same, each has a conversation of his own.
local function may_be(o, session)
  return may_join(o, session, 'text') and not (session.customer and o.customer and session.customer ~= o.customer)
end

-- The session that is the longest at an open end; one still open before one that is over. What comes after an end
-- begins after it, but for the clocks of two machines.
local CLOCKS_MS = 1000
local function open_end(work, o, digest, since)
  local over
  for _, entry in ipairs(entries(work, digest)) do
    local within = entry.mark == 'e' and entry.at >= since and entry.at <= o.started_ms + CLOCKS_MS
    local session = within and find(work, entry.id)
    if session and may_be(o, session) then
      if is_open(session) then
        return session
      end
      over = over or session
    end
  end
  return over
end

-- All that came by a text, open ends and passed ones: {session id = {session, entry}}, and how many.
local function passers(work, o, digest)
  local found, n = {}, 0
  for _, entry in ipairs(entries(work, digest)) do
    local session = entry.mark ~= 'w' and find(work, entry.id)
    if session and not found[session.id] and may_be(o, session) then
      found[session.id], n = { session = session, entry = entry, digest = digest }, n + 1
    end
  end
  return found, n
end

local function common(one, other)
  local found, n = {}, 0
  for id in pairs(other) do
    if one[id] then
      found[id], n = one[id], n + 1
    end
  end
  return found, n
end

local function mark_at(work, digest, id)
  for _, entry in ipairs(entries(work, digest)) do
    if entry.id == id then
      return entry.mark
    end
  end
  return nil
end

local function pass(work, digest, id)
  if digest and digest ~= '' and mark_at(work, digest, id) == 'e' then
    table.insert(work.passed, { digest = digest, id = id })
  end
end

-- A history that leads to no open end: a branch, or one that was trimmed or touched up. Every text of it narrows down
-- whose it is; of several that are left, one whose conversation stands at that answer, then the one that was there last.
local function recall(work, o)
  local t = o.thread
  local digests = { t.asked, t.follows }
  for _, digest in ipairs(t.recalls) do
    table.insert(digests, digest)
  end
  local pool, n = {}, 0
  for _, digest in ipairs(digests) do
    local found, m = passers(work, o, digest)
    if n == 0 then
      pool, n = found, m
    elseif m > 0 then
      local both, k = common(pool, found)
      if k > 0 then
        pool, n = both, k
      end
    end
    if n == 1 then
      break
    end
  end
  local best
  for _, each in pairs(pool) do
    each.ended = each.entry.mark == 'e' or (each.entry.tip ~= '' and mark_at(work, each.entry.tip, each.session.id) == 'e')
    local at, best_at = each.entry.at, best and best.entry.at
    if not best or (each.ended and not best.ended)
      or (each.ended == best.ended and (at > best_at or (at == best_at and each.entry.id < best.entry.id))) then
      best = each
    end
  end
  if n > 1 then
    count(work, 'ambiguous')
  end
  if best then
    pass(work, best.entry.tip, best.session.id)
    return best.session
  end
  return nil
end

-- A request is sent again although it was answered: the answer was lost on its way to the client.
local function answered_just_now(work, o)
  local list = entries(work, o.thread.asked)
  for i = #list, 1, -1 do
    local recent = list[i].mark == 'p' and list[i].at >= o.started_ms - LIMITS.again_seconds * 1000
    local session = recent and find(work, list[i].id)
    if session and may_be(o, session) then
      return session
    end
  end
  return nil
end

-- A first request failed, and this is the next attempt: it opens the session that the former one did not.
local function take_failure(work, o)
  for _, entry in ipairs(entries(work, o.thread.asked)) do
    if entry.mark == 'f' and entry.at <= o.started_ms + CLOCKS_MS then
      table.insert(work.failures, { digest = o.thread.asked, id = entry.id })
      return true
    end
  end
  return false
end

-- A request that was not answered, and opened nothing that is known: the session that the same request has opened since
-- then, applied by a replica that was quicker.
local function sent_again_since(work, o)
  local best
  for _, entry in ipairs(entries(work, o.thread.asked)) do
    local session = entry.mark == 'p' and find(work, entry.id)
    local after = session and session.started - o.at_ms
    if after and after >= -CLOCKS_MS and after <= LIMITS.repeat_minutes * 60000 and may_be(o, session) then
      if not best or session.started < best.started then
        best = session
      end
    end
  end
  return best
end

-- By texts: the session, how it was found, and whether that is certain.
local function locate_by_text(work, o)
  local t = o.thread
  if not t then
    return nil
  end
  local session = open_end(work, o, t.asked, o.started_ms - LIMITS.repeat_minutes * 60000)
  if not session and t.again and not take_failure(work, o) then
    session = answered_just_now(work, o)
    if session then
      return session, 'repeat', false
    end
  end
  if not session and o.opens and not t.reaches and not t.follows then
    session = sent_again_since(work, o)
  end
  if session then
    return session, 'repeat', true
  end
  if not t.follows then
    return nil
  end
  session = open_end(work, o, t.follows, 0)
  if session then
    return session, 'text', true
  end
  return recall(work, o), 'text', false
end

local function wanted(work, o)
  local t = o.thread
  if t and t.reaches then
    for _, entry in ipairs(entries(work, t.reaches)) do
      local session = entry.mark == 'w' and entry.at >= o.at_ms and find(work, entry.id)
      if session and may_be(o, session) then
        return session
      end
    end
  end
  return nil
end

-- The session that the exchange belongs to, how it was found, and whether nothing that another replica has yet to say
-- could change that.
local function locate(work, o)
  local trace, handed_on
  for i, k in ipairs(o.keys) do
    if k.kind == 'trace' then
      trace = k
    else
      handed_on = handed_on or k.kind == 'response' or k.kind == 'tool_call'
      local session = session_of_alias(work, k.digest)
      if session and may_join(o, session, k.kind, i) then
        if k.kind == 'conversation' then
          session = siblings(work, session.root)[1] or session
        end
        return session, k.kind, true
      end
    end
  end
  if o.touch then
    return nil, nil, true
  end
  local session, how, certain = locate_by_text(work, o)
  if session and certain then
    return session, how, true
  end
  -- Something came before it that is not known (yet).
  certain = o.conversation ~= nil or not (handed_on or (o.thread and (o.thread.follows or o.thread.again)))
  if session then
    return session, how, certain
  end
  session = trace and session_of_alias(work, trace.digest)
  if session and may_join(o, session, 'trace') then
    if (session.trace_joins or 0) < LIMITS.trace_joins then
      session.trace_joins = (session.trace_joins or 0) + 1
      return session, 'trace', certain
    end
    count(work, 'trace_joins_over')
  end
  -- Somebody has come before it with what it made: this replica was behind.
  for _, k in ipairs(o.made) do
    session = session_of_alias(work, k.digest)
    if session and may_join(o, session, k.kind) then
      return session, k.kind, true
    end
  end
  session = wanted(work, o)
  if session then
    return session, 'text', true
  end
  return nil, nil, certain
end

-- Two open sessions that are one: the older id lives, the other becomes an alias of it.

local function older(one, other)
  return one.started < other.started or (one.started == other.started and one.id < other.id)
end

local function may_merge(o, session, other, kind, digest, number)
  if other.id == session.id or not is_open(other) or other.shadow ~= session.shadow then
    return false
  end
  if kind == 'conversation' then
    return not held_apart(o, other, number)
  end
  if is_named(session) and is_named(other) then
    return false
  end
  if kind ~= 'trace' then
    return true
  end
  -- A trace joins what began in it, and not without end: some processes never begin another.
  local joins = (session.trace_joins or 0) + (other.trace_joins or 0)
  return joins < LIMITS.trace_joins and (session.trace == digest or other.trace == digest)
end

-- What the living session takes over from a set of the other's; returns how many it had already.
local function take_members(additions, name, theirs, limit)
  local members = redis.call('SMEMBERS', theirs)
  table.sort(members)
  local before, fresh = known(name, members), {}
  for _, member in ipairs(members) do
    if not before[member] then
      table.insert(fresh, member)
    end
  end
  table.insert(additions, { members = fresh, room = math.max(limit - redis.call('SCARD', name), 0) })
  return #members - #fresh
end

local function take_counts(work, into, from, kind)
  work.seen[into.root] = work.seen[into.root] or {}
  work.calls[into.id] = work.calls[into.id] or {}
  local twice = 0
  if into.root ~= from.root then
    twice = take_members(work.seen[into.root], key('seen', into.root), key('seen', from.root), LIMITS.messages)
  end
  local calls = take_members(work.calls[into.id], key('calls', into.id), key('calls', from.id), LIMITS.calls)
  local ours, theirs = sides_of(into), sides_of(from)
  local less = math.min(twice, theirs.model)
  -- Of two that only a trace joins, one is the agent's own doing: what it asked there was no user's turn.
  ours.model = kind == 'trace' and math.max(ours.model, theirs.model) or ours.model + theirs.model - less
  ours.user = ours.user + math.max(theirs.user - (twice - less), 0)
  into.sides = ours
  into.turns = turns_of(into)
  into.tool_calls = into.tool_calls + math.max(from.tool_calls - calls, 0)
  into.llm_calls = into.llm_calls + from.llm_calls
  into.input_tokens = into.input_tokens + from.input_tokens
  into.output_tokens = into.output_tokens + from.output_tokens
  into.omitted = into.omitted + from.omitted
  into.trace_joins = (into.trace_joins or 0) + (from.trace_joins or 0)
  add_models(work, into, from.models)
end

local function take_state(work, into, from)
  into.started, into.last = math.min(into.started, from.started), math.max(into.last, from.last)
  if RANKS[from.state] > RANKS[into.state] then
    into.state, into.reason, into.held = from.state, from.reason, from.held
    into.outcome, into.confirmation = from.outcome, from.confirmation
  end
  into.deadline = into.last + timer_ms(into.state, into.terms)
  into.complete = into.complete and from.complete
  into.conversation = into.conversation or from.conversation
  into.names = into.names or {}
  for source, digest in pairs(from.names or {}) do
    into.names[source] = into.names[source] or digest
  end
  name_customer(work, into, from.customer)
  merge_attributes(work, into, from.attributes)
  for _, item in ipairs(from.evidence) do
    prove(work, into, item, item.at)
  end
end

-- Everything that leads to the one leads to the other from now on.
local function take_names(work, into, from)
  local registered = work.registered[into.id] or {}
  for _, digest in ipairs(redis.call('LRANGE', key('aliases', from.id), 0, -1)) do
    work.aliases[digest] = into.id
    table.insert(registered, digest)
  end
  work.registered[into.id] = registered
  local texts = work.texts[into.id] or {}
  for _, digest in ipairs(redis.call('LRANGE', key('texts', from.id), 0, -1)) do
    local value = redis.call('HGET', key('text', digest), from.id)
    if value then
      table.insert(texts, { digest = digest, value = value, instead = from.id })
    end
  end
  work.texts[into.id] = texts
  for _, sibling in ipairs(siblings(work, from.root, LIMITS.siblings)) do
    if sibling.id ~= from.id and into.root ~= from.root then
      sibling.root = into.root
      table.insert(work.moved, sibling)
      change(work, sibling)
    end
  end
end

local function absorb(work, into, from, at, kind)
  local entries_before = redis.call('LRANGE', key('timeline', from.id), 0, -1)
  for _, entry in ipairs(work.notes[from.id] or {}) do
    table.insert(entries_before, entry)
  end
  if is_open(into) then
    take_counts(work, into, from, kind)
    take_state(work, into, from)
    prove(work, into, { rule = 'merge', kind = kind, digest = from.id }, at)
  end
  take_names(work, into, from)
  for _, entry in ipairs(entries_before) do
    note(work, into, cjson.decode(entry)) -- in the chain of the session that lives
  end
  forget(work, from, into)
  count(work, 'opened', -1)
  count(work, 'open', -1)
  count(work, 'merged')
  note(work, into, { what = 'merged', at = at, kind = kind, id = from.id })
end

local function merge(work, session, other, at, kind)
  if older(other, session) then
    absorb(work, other, session, at, kind)
    return other
  end
  absorb(work, session, other, at, kind)
  return session
end

-- Open sessions to which the exchange's keys lead as well. Returns the session that lives.
local function merge_all(work, session, o)
  if o.touch or not is_open(session) then
    return session
  end
  local function consider(kind, digest, number)
    local other = session_of_alias(work, digest)
    if other and may_merge(o, session, other, kind, digest, number) then
      session = merge(work, session, other, o.at_ms, kind)
    end
  end
  for i, k in ipairs(o.keys) do
    consider(k.kind, k.digest, i)
  end
  for _, k in ipairs(o.made) do
    consider(k.kind, k.digest)
  end
  local waiting = wanted(work, o)
  if waiting and may_merge(o, session, waiting, 'text') then
    session = merge(work, session, waiting, o.at_ms, 'text')
  end
  return session
end

-- What was merged when the fact was applied before is merged again, and nothing else. An id that opens only later leads
-- to the living session from the start; one that is over by now has been so before, with the other in it.
local function merge_again(work, session, o)
  for _, id in ipairs(o.merged or {}) do
    local other = find(work, id)
    if not other then
      work.gone[id] = session.id
    elseif other.id ~= session.id and is_open(other) then
      absorb(work, session, other, o.at_ms, 'replay')
    end
  end
  return session
end

local function register_failure(work, o)
  local t = o.thread
  if t and not t.reaches and not t.follows and not o.touch then
    local id = o.producer .. ':' .. int(o.started_ms)
    table.insert(work.failures, { digest = t.asked, id = id, value = text_value('f', o.at_ms) })
  end
end

-- Remembers where the exchange stands among the texts; ids name it better where it has any.
local function register_text(work, session, located, o, opened)
  local t = o.thread
  if not t or o.touch or o.conversation then
    return
  end
  local texts = work.texts[session.id] or {}
  work.texts[session.id] = texts
  local function put(digest, mark, at, tip)
    table.insert(texts, { digest = digest, value = text_value(mark, at, tip) })
  end
  if t.follows then
    pass(work, t.follows, session.id)
    if located then
      pass(work, t.follows, located.id)
    elseif opened then
      put(t.follows, 'w', o.started_ms)
    end
  end
  put(t.asked, t.reaches and 'p' or 'e', o.at_ms, t.reaches)
  if t.reaches then
    put(t.reaches, 'e', o.at_ms)
    for _, digest in ipairs(t.makes) do
      put(digest, 'p', o.at_ms, t.reaches)
    end
  end
  change(work, session)
end
