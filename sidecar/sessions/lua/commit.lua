-- commit.lua: writes what a unit of work has decided, all at once; nothing here may fail. See work.lua.

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

local function leads_to(digest, id)
  return id_in(redis.call('GET', key('alias', digest)) or nil) == id
end

-- The first aliases are kept (the conversation's own id is among them), then the newest.
local function write_aliases(work, session, digests, ttl)
  local name, dropped = key('aliases', session.id), 0
  for _, digest in ipairs(digests) do
    redis.call('SET', key('alias', digest), work.aliases[digest], 'PX', int(ttl))
    redis.call('LREM', name, 1, digest)
    if redis.call('RPUSH', name, digest) > LIMITS.aliases then
      local oldest = redis.call('LINDEX', name, LIMITS.aliases_first)
      redis.call('LREM', name, 1, oldest)
      if leads_to(oldest, session.id) then
        redis.call('DEL', key('alias', oldest))
      end
      dropped = dropped + 1
    end
  end
  return dropped
end

-- Of too many at one text the one goes that has been there the longest, of those that were passed first; of those that
-- handed an id on before those that made it.
local function make_room(work, name)
  if redis.call('HLEN', name) < LIMITS.text_sessions then
    return
  end
  local oldest, least
  local raw = redis.call('HGETALL', name)
  for i = 1, #raw, 2 do
    local mark, at = string.match(raw[i + 1], '^(%a)(%d+)')
    local rank = ((mark == 'e' or mark == 'm') and 1e15 or 0) + tonumber(at)
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

-- What a session has at a text besides what its own exchange brought. It lives as long as the session does, and makes that
-- live no longer.
local function write_entered(work, entered)
  local session = entered.session
  local ttl = work.dirty[session.id] and ttl_of(session) or redis.call('PTTL', key('session', session.id))
  write_texts(work, session, { entered }, ttl)
  keep(key('texts', session.id), ttl)
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
    if leads_to(digest, session.id) then
      table.insert(names, key('alias', digest))
    end
  end
  for _, name in ipairs(names) do
    redis.call('PEXPIRE', name, int(ttl))
  end
  -- Ids of the conversation lead here for a while longer: a signal that names one then is late, and does not wait for
  -- the conversation's next session.
  for _, digest in pairs(session.names or {}) do
    if leads_to(digest, session.id) then
      redis.call('PEXPIRE', key('alias', digest), int(ttl + LIMITS.waiting_days * DAY))
    end
  end
end

local function write_session(work, session)
  local ttl, id = ttl_of(session), session.id
  write_timeline(session, work.notes[id] or {})
  local dropped = write_aliases(work, session, work.registered[id] or {}, ttl)
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
  redis.call('DEL', key('merged', session.id)) -- of before a loss: it is itself again, and no way leads in a circle
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
  for _, each in ipairs(work.entered) do
    write_entered(work, each)
  end
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
  for digest, holder in pairs(work.shared) do
    redis.call('DEL', key('alias', digest))
    redis.call('LREM', key('aliases', holder.id), 1, digest)
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
  for hour, by in pairs(work.hours) do
    redis.call('HINCRBY', key('finalized'), int(hour), by)
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
