-- work.lua: a unit of work. A script decides on tables in memory first and writes once, at the end, in `commit`:
-- Redis does not roll back a script that fails half-way, so nothing may fail after the first write. Whatever may be
-- refused (bad input, an illegal move, a full outbox) is refused before `commit` is called.
--
-- KEYS[1] is the tenant's prefix, `sidecar:{tenant}`. Every other key begins with it and so shares its hash slot.
--
--   session:<id>     string  the session as JSON                 timeline:<id>  list   what happened, as JSON
--   calls:<id>       set     digests of tool calls seen          aliases:<id>   list   digests that lead here
--   alias:<digest>   string  session id                          sessions:<root> zset  sessions of a conversation
--   seen:<root>      set     digests of user messages seen       number:<base>  string running number of a base
--   waiting:<name>   list    signals that came before            signal:<sha1>  string who brought this signal
--   applied:<producer> string sequence applied                   recent         zset   session ids by their start
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
    seen = {}, calls = {}, newest = {}, opened = {}, numbers = {}, taken = {}, used = {}, waiting = {}, finalized = {},
  }
end

local function count(work, name, by)
  work.counters[name] = (work.counters[name] or 0) + (by or 1)
end

local function find(work, id)
  local session = work.sessions[id]
  if session == nil then
    local raw = redis.call('GET', key('session', id))
    session = raw and cjson.decode(raw) or false
    work.sessions[id] = session
  end
  return session or nil
end

local function change(work, session)
  if not work.dirty[session.id] then
    work.dirty[session.id] = true
    table.insert(work.order, session)
  end
end

-- One entry of the timeline; says under which plan it was decided.
local function note(work, session, entry)
  entry.plan = session.terms.digest
  work.notes[session.id] = work.notes[session.id] or {}
  table.insert(work.notes[session.id], cjson.encode(entry))
  change(work, session)
end

local function session_of_alias(work, digest)
  local id = work.aliases[digest] or redis.call('GET', key('alias', digest))
  return id and find(work, id)
end

-- Sessions of a conversation, newest first; `most` of them.
local function siblings(work, root, most)
  local all = {}
  for _, session in ipairs(work.opened) do
    if session.root == root then
      table.insert(all, 1, session)
    end
  end
  for _, id in ipairs(redis.call('ZREVRANGE', key('sessions', root), 0, (most or 1) - 1)) do
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

local function add_members(name, members, room)
  for i = 1, math.min(#members, room) do
    redis.call('SADD', name, members[i])
  end
end

-- A final session's keys live as long as it can still be revised, no longer.
local function shorten(session, ttl)
  local names = {
    key('timeline', session.id), key('calls', session.id), key('aliases', session.id),
    key('seen', session.root), key('sessions', session.root),
  }
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
    keep(key('seen', session.root), ttl)
    keep(key('sessions', session.root), ttl)
    for _, digest in ipairs(work.used[id] or {}) do
      keep(key('alias', digest), ttl)
    end
  end
end

local function write_opened(session)
  local name = key('sessions', session.root)
  local last = redis.call('ZREVRANGE', name, 0, 0, 'WITHSCORES')
  redis.call('ZADD', name, int((tonumber(last[2]) or 0) + 1), session.id)
  local cut = redis.call('ZREMRANGEBYRANK', name, 0, -LIMITS.siblings - 1)
  if cut > 0 then
    redis.call('HINCRBY', key('counters'), 'siblings_over', cut)
  end
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
      attributes = session.attributes, evidence = session.evidence,
    }),
  })
end

-- Whether the outbox has room for what this work would post.
local function fits(work, outbox_max)
  return #work.events == 0 or redis.call('XLEN', key('outbox')) + #work.events <= outbox_max
end

local function commit(work)
  for _, session in ipairs(work.opened) do
    write_opened(session)
  end
  for _, session in ipairs(work.order) do
    write_session(work, session)
  end
  for _, event in ipairs(work.events) do
    redis.call('XADD', key('outbox'), '*', 'kind', 'outcome', 'body', event.body)
  end
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
