-- work.lua: a unit of work. A script decides on tables in memory first and writes once, at the end, in `commit`:
-- Redis does not roll back a script that fails half-way, so nothing may fail after the first write. Whatever may be
-- refused (bad input, an illegal move, a full outbox) is refused before `commit` is called.
--
-- KEYS[1] is the tenant's prefix, `sidecar:{tenant}`. Every other key begins with it and so shares its hash slot.
--
--   session:<id>     string  the session as JSON                 timeline:<id>  list   what happened, as JSON
--   calls:<id>       set     digests of tool calls seen          aliases:<id>   list   digests that lead here
--   alias:<digest>   string  session id                          sessions:<root> zset  sessions of a conversation
--   text:<digest>    hash    session id → mark (stitch.lua)      texts:<id>     list   texts that lead here
--   merged:<id>      string  the session that it became a part of
--   seen:<root>      set     digests of user messages seen       number:<base>  string running number of a base
--   waiting:<name>   list    signals that came before            signal:<sha1>  string who brought this signal
--   applied:<producer> string sequence applied                   recent         zset   session ids by their start
--   events         stream  the newest moves of sessions, for who watches them live
--   folded:<producer> string how many of its dropped copies are in dropped's total (field *)
-- without TTL: outbox (stream), dead (stream), deadlines, marks, replays (zsets), beats, dropped, counters (hashes), hash-key,
-- generation (strings): each is one key per tenant, or bounded by a count.

local HOUR, DAY = 3600000, 86400000

local function key(...)
  return KEYS[1] .. ':' .. table.concat({ ... }, ':')
end

local function int(number)
  return string.format('%.0f', number)
end

local function new_work()
  return {
    sessions = {}, dirty = {}, order = {}, events = {}, counters = {}, notes = {}, aliases = {}, registered = {},
    seen = {}, calls = {}, opened = {}, taken = {}, used = {}, waiting = {}, finalized = {},
    entries = {}, texts = {}, passed = {}, moved = {}, gone = {}, failures = {}, moves = {},
  }
end

local function count(work, name, by)
  work.counters[name] = (work.counters[name] or 0) + (by or 1)
end

local function load(work, id)
  local session = work.sessions[id]
  if session == nil then
    local raw = redis.call('GET', key('session', id))
    session = raw and cjson.decode(raw) or false
    work.sessions[id] = session
  end
  return session
end

-- The session of that id, or the one that it has become a part of.
local function find(work, id)
  local session = load(work, id)
  for _ = 1, 8 do
    local into = not session and redis.call('GET', key('merged', id))
    if not into then
      break
    end
    id, session = into, load(work, into)
  end
  return session or nil
end

-- The session is a part of another from now on: its own keys go, its id leads there.
local function forget(work, from, into)
  work.sessions[from.id] = into
  work.gone[from.id] = into.id
  work.notes[from.id] = nil
  for _, list in ipairs({ work.order, work.opened }) do
    for i = #list, 1, -1 do
      if list[i].id == from.id then
        table.remove(list, i)
      end
    end
  end
end

local function change(work, session)
  if not work.dirty[session.id] then
    work.dirty[session.id] = true
    table.insert(work.order, session)
  end
end

-- JSON with sorted names, so that a replay, on whatever server, writes the same bytes. For flat entries of the timeline.
local function canonical(entry)
  local names, parts = {}, {}
  for name in pairs(entry) do
    table.insert(names, name)
  end
  table.sort(names)
  for i, name in ipairs(names) do
    local value = entry[name]
    local text = type(value) == 'table' and canonical(value) or type(value) == 'number' and int(value)
    parts[i] = cjson.encode(name) .. ':' .. (text or cjson.encode(value))
  end
  return '{' .. table.concat(parts, ',') .. '}'
end

-- One entry of the timeline; says under which plan it was decided. Each names the digest of the one before (`prev`), the
-- session that of the newest (`chain`) and of the last that is never dropped (`anchor`), and what is posted carries it
-- out: a later change of any entry shows (chain.py). Lua in Redis has SHA-1 and no other digest.
local function note(work, session, entry)
  entry.plan = entry.plan or session.terms.digest
  entry.n, entry.prev = (session.entries or 0) + 1, session.chain or ''
  local text = canonical(entry)
  session.entries, session.chain = entry.n, 'sha1:' .. redis.sha1hex(text)
  if entry.n == LIMITS.timeline_first then
    session.anchor = session.chain
  end
  work.notes[session.id] = work.notes[session.id] or {}
  table.insert(work.notes[session.id], text)
  change(work, session)
end

-- For who watches live: a session came into a state. The newest are kept; nothing is decided by them.
local function announce(work, session, at, from)
  table.insert(work.moves, {
    session = session, move = {
      at = at, session_id = session.id, from = from, state = session.state, outcome = session.outcome,
      reason = session.reason, revision = session.revision, held = session.held, shadow = session.shadow,
    },
  })
end

-- As of the end of the work: a session is opened before it is known whose it is.
local function write_moves(work)
  for _, each in ipairs(work.moves) do
    each.move.conversation, each.move.customer = each.session.conversation, each.session.customer
    redis.call('XADD', key('events'), 'MAXLEN', '~', int(LIMITS.events), '*', 'body', cjson.encode(each.move))
  end
  if #work.moves > 0 then
    redis.call('PEXPIRE', key('events'), int(DAY))
  end
end

local function session_of_alias(work, digest)
  local id = work.aliases[digest] or redis.call('GET', key('alias', digest))
  return id and find(work, id)
end

-- Sessions of a conversation, newest first: `most` of them, or, for who wants the newest, a few, since keys may be gone.
local function siblings(work, root, most)
  local all = {}
  for _, session in ipairs(work.opened) do
    if session.root == root then
      table.insert(all, 1, session)
    end
  end
  for _, id in ipairs(redis.call('ZREVRANGE', key('sessions', root), 0, (most or 8) - 1)) do
    local session = find(work, id)
    if session then
      table.insert(all, session)
    end
  end
  return all
end

-- Which of `members` are in the set at `name`: {member = true}.
local function known(name, members)
  local found = {}
  for first = 1, #members, 1000 do
    local last = math.min(first + 999, #members)
    local flags = redis.call('SMISMEMBER', name, unpack(members, first, last))
    for i, flag in ipairs(flags) do
      if flag == 1 then
        found[members[first + i - 1]] = true
      end
    end
  end
  return found
end

-- Lengthens the life of a key, never shortens it.
local function keep(name, ttl)
  local left = redis.call('PTTL', name)
  if left ~= -2 and left < ttl then
    redis.call('PEXPIRE', name, int(ttl))
  end
end

local function ttl_of(session)
  if is_open(session) then
    return math.max(session.deadline - session.last, 0) + 30 * DAY
  end
  return session.terms.reversal_ms + 24 * HOUR
end

-- The oldest entries and the newest are kept; what falls out between them is counted in the session.
local function write_timeline(session, entries)
  local name = key('timeline', session.id)
  for _, entry in ipairs(entries) do
    if redis.call('RPUSH', name, entry) > LIMITS.timeline_first + LIMITS.timeline_last then
      redis.call('LSET', name, LIMITS.timeline_first, '-')
      redis.call('LREM', name, 1, '-')
      session.omitted = session.omitted + 1
    end
  end
end

-- The first aliases are kept (the conversation's own id is among them), then the newest.
local function write_aliases(session, digests, ttl)
  local name, dropped = key('aliases', session.id), 0
  for _, digest in ipairs(digests) do
    redis.call('SET', key('alias', digest), session.id, 'PX', int(ttl))
    redis.call('LREM', name, 1, digest)
    if redis.call('RPUSH', name, digest) > LIMITS.aliases then
      local oldest = redis.call('LINDEX', name, LIMITS.aliases_first)
      redis.call('LREM', name, 1, oldest)
      if redis.call('GET', key('alias', oldest)) == session.id then
        redis.call('DEL', key('alias', oldest))
      end
      dropped = dropped + 1
    end
  end
  return dropped
end

-- Of too many at one text the one goes that has been there the longest, of those that were passed first.
local function make_room(work, name)
  if redis.call('HLEN', name) < LIMITS.text_sessions then
    return
  end
  local oldest, least
  local raw = redis.call('HGETALL', name)
  for i = 1, #raw, 2 do
    local mark, at = string.match(raw[i + 1], '^(%a)(%d+)')
    local rank = (mark == 'e' and 1e15 or 0) + tonumber(at)
    if not least or rank < least then
      oldest, least = raw[i], rank
    end
  end
  redis.call('HDEL', name, oldest)
  count(work, 'text_sessions_dropped')
end

-- Texts that lead to the session; of too many the oldest goes.
local function write_texts(work, session, texts, ttl)
  local list, id = key('texts', session.id), session.id
  for _, text in ipairs(texts) do
    local name = key('text', text.digest)
    if text.instead then
      redis.call('HDEL', name, text.instead)
    end
    if redis.call('HEXISTS', name, id) == 0 then
      make_room(work, name)
      if redis.call('RPUSH', list, text.digest) > LIMITS.texts then
        redis.call('HDEL', key('text', redis.call('LPOP', list)), id)
        count(work, 'texts_dropped')
      end
    end
    redis.call('HSET', name, id, text.value)
    if redis.call('PTTL', name) < ttl then
      redis.call('PEXPIRE', name, int(ttl))
    end
  end
end

-- First requests that failed: remembered until they are sent again.
local function write_failures(work)
  for _, failure in ipairs(work.failures) do
    local name = key('text', failure.digest)
    if failure.value then
      make_room(work, name)
      redis.call('HSET', name, failure.id, failure.value)
      if redis.call('PTTL', name) < 0 then
        redis.call('PEXPIRE', name, int(LIMITS.repeat_minutes * 60000))
      end
    else
      redis.call('HDEL', name, failure.id)
    end
  end
end

local function add_members(name, members, room)
  for i = 1, math.min(#members, room) do
    redis.call('SADD', name, members[i])
  end
end

-- A final session's keys live as long as it can still be revised, no longer.
local function shorten(session, ttl)
  local names = {
    key('timeline', session.id), key('calls', session.id), key('aliases', session.id), key('texts', session.id),
    key('seen', session.root), key('sessions', session.root),
  }
  for _, digest in ipairs(redis.call('LRANGE', key('texts', session.id), 0, -1)) do
    if redis.call('HLEN', key('text', digest)) == 1 then
      table.insert(names, key('text', digest))
    end
  end
  for _, digest in ipairs(redis.call('LRANGE', key('aliases', session.id), 0, -1)) do
    if redis.call('GET', key('alias', digest)) == session.id then
      table.insert(names, key('alias', digest))
    end
  end
  for _, name in ipairs(names) do
    redis.call('PEXPIRE', name, int(ttl))
  end
  -- Ids of the conversation lead here for a while longer: a signal that names one then is late, and does not wait for
  -- the conversation's next session.
  for _, digest in pairs(session.names or {}) do
    if redis.call('GET', key('alias', digest)) == session.id then
      redis.call('PEXPIRE', key('alias', digest), int(ttl + LIMITS.waiting_days * DAY))
    end
  end
end

local function write_session(work, session)
  local ttl, id = ttl_of(session), session.id
  write_timeline(session, work.notes[id] or {})
  local dropped = write_aliases(session, work.registered[id] or {}, ttl)
  if dropped > 0 then
    count(work, 'aliases_dropped', dropped)
  end
  write_texts(work, session, work.texts[id] or {}, ttl)
  for _, addition in ipairs(work.seen[session.root] or {}) do
    add_members(key('seen', session.root), addition.members, addition.room)
  end
  work.seen[session.root] = nil
  for _, addition in ipairs(work.calls[id] or {}) do
    add_members(key('calls', id), addition.members, addition.room)
  end
  redis.call('SET', key('session', id), cjson.encode(session), 'PX', int(ttl))
  if is_open(session) then
    redis.call('ZADD', key('deadlines'), int(session.deadline), id)
  else
    redis.call('ZREM', key('deadlines'), id)
  end
  if work.finalized[id] then
    shorten(session, ttl)
  else
    keep(key('timeline', id), ttl)
    keep(key('calls', id), ttl)
    keep(key('aliases', id), ttl)
    keep(key('texts', id), ttl)
    keep(key('seen', session.root), ttl)
    keep(key('sessions', session.root), ttl)
    for _, digest in ipairs(work.used[id] or {}) do
      keep(key('alias', digest), ttl)
    end
  end
end

-- Sessions of a conversation stand in the order in which they began, whoever applied them first.
local function write_sibling(session)
  local name = key('sessions', session.root)
  redis.call('ZADD', name, int(session.started * 64 + math.min(session.number, 63)), session.id)
  local cut = redis.call('ZREMRANGEBYRANK', name, 0, -LIMITS.siblings - 1)
  if cut > 0 then
    redis.call('HINCRBY', key('counters'), 'siblings_over', cut)
  end
end

local function write_opened(session)
  write_sibling(session)
  -- A base without a conversation's id is one observation's: no other session ever asks for its number.
  local life = session.conversation and LIMITS.number_days * DAY or ttl_of(session)
  redis.call('SET', key('number', session.base), int(session.number), 'PX', int(life))
  redis.call('ZADD', key('recent'), int(session.started), session.id)
  local unlisted = redis.call('ZREMRANGEBYRANK', key('recent'), 0, -LIMITS.recent - 1)
  if unlisted > 0 then
    redis.call('HINCRBY', key('counters'), 'recent_over', unlisted)
  end
  redis.call('PEXPIRE', key('recent'), int(LIMITS.number_days * DAY))
end

local function write_gone(id, into)
  redis.call('SET', key('merged', id), into, 'PX', int(LIMITS.merged_days * DAY))
  for _, kind in ipairs({ 'session', 'timeline', 'calls', 'aliases', 'texts', 'seen', 'sessions' }) do
    redis.call('DEL', key(kind, id))
  end
  redis.call('ZREM', key('deadlines'), id)
  redis.call('ZREM', key('recent'), id)
end

local function post(work, session, at)
  local final = session.state
  session.posted = math.max(at, session.posted or at)
  table.insert(work.events, {
    session_id = session.id,
    revision = session.revision,
    state = final,
    body = cjson.encode({
      v = 1,
      session_id = session.id, tenant = session.tenant, conversation = session.conversation,
      customer = session.customer, state = final, confirmation = final == 'RESOLVED' and session.confirmation or nil,
      outcome = final == 'RESOLVED' and session.outcome or OUTCOMES[final],
      reason = session.reason, revision = session.revision, time_ms = session.posted,
      held = session.held or (not session.complete and session.terms.incomplete_policy == 'HOLD'),
      billable = session.complete or session.terms.incomplete_policy ~= 'NO_CHARGE',
      shadow = session.shadow, complete = session.complete,
      started_ms = session.started, ended_ms = session.ended,
      turns = session.turns, llm_calls = session.llm_calls, tool_calls = session.tool_calls,
      models = session.models, input_tokens = session.input_tokens, output_tokens = session.output_tokens,
      plan = session.terms.plan, plan_digest = session.terms.digest,
      attributes = session.attributes, evidence = session.evidence, chain = session.chain,
    }),
  })
end

-- Whether the outbox has room for what this work would post.
local function fits(work, outbox_max)
  return #work.events == 0 or redis.call('XLEN', key('outbox')) + #work.events <= outbox_max
end

local function commit(work)
  for id, into in pairs(work.gone) do
    write_gone(id, into)
  end
  for _, session in ipairs(work.opened) do
    write_opened(session)
  end
  for _, session in ipairs(work.moved) do
    write_sibling(session)
  end
  write_failures(work)
  for _, passed in ipairs(work.passed) do
    local name = key('text', passed.digest)
    local value = redis.call('HGET', name, passed.id)
    if value then
      redis.call('HSET', name, passed.id, 'p' .. string.sub(value, 2))
    end
  end
  for _, session in ipairs(work.order) do
    write_session(work, session)
  end
  for _, event in ipairs(work.events) do
    redis.call('XADD', key('outbox'), '*', 'kind', 'outcome', 'body', event.body)
  end
  write_moves(work)
  for name in pairs(work.taken) do
    redis.call('DEL', name)
  end
  for _, waiting in ipairs(work.waiting) do
    redis.call('RPUSH', waiting.name, waiting.body)
    redis.call('PEXPIRE', waiting.name, int(LIMITS.waiting_days * DAY))
  end
  for name, by in pairs(work.counters) do
    redis.call('HINCRBY', key('counters'), name, by)
  end
end

-- What the caller is told of the posted events: "session_id revision state" each.
local function told(work)
  local lines = {}
  for i, event in ipairs(work.events) do
    lines[i] = event.session_id .. ' ' .. int(event.revision) .. ' ' .. event.state
  end
  return lines
end
