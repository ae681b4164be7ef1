-- work.lua: a unit of work. A script decides on tables in memory first and writes once, at the end, in `commit`:
-- Redis does not roll back a script that fails half-way, so nothing may fail after the first write. Whatever may be
-- refused (bad input, an illegal move, a full outbox) is refused before `commit` is called.
--
-- KEYS[1] is the tenant's prefix, `sidecar:{tenant}`. Every other key begins with it and so shares its hash slot.
--
--   session:<id>     string  the session as JSON                 timeline:<id>  list   what happened, as JSON
--   calls:<id>       set     digests of tool calls seen          aliases:<id>   list   digests that lead here
--   alias:<digest>   string  session id (and more: made.lua)     sessions:<root> zset  sessions of a conversation
--   text:<digest>    hash    session id → mark (texts, made.lua) texts:<id>     list   texts that lead here
--   merged:<id>      string  the session that it became a part of
--   seen:<root>      set     digests of user messages seen       number:<base>  string running number of a base
--   waiting:<name>   list    signals that came before            signal:<sha1>  string who brought this signal
--   applied:<producer> string sequence applied                   recent         zset   session ids by their start
--   events         stream  the newest moves of sessions, for who watches them live
--   went:<producer>  zset    where its last observations went
--   finalized        hash    hour of a first outcome's time, in hours since 1970 → how many; before: of older hours
--   told-since       string  hour: those before it are put together in finalized (statement.lua)
--   folded:<producer> string how many of its dropped copies are in dropped's total (field *)
-- without TTL: outbox (stream), dead (stream), deadlines, marks, replays (zsets), beats, dropped, counters, finalized (hashes),
-- hash-key, generation, told-since (strings): each is one key per tenant, or bounded by a count.

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
    entries = {}, texts = {}, entered = {}, shared = {}, passed = {}, moved = {}, gone = {}, failures = {}, moves = {},
    hours = {},
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
  for hops = 1, LIMITS.merged_hops do
    local into = not session and (work.gone[id] or redis.call('GET', key('merged', id)))
    if not into then
      break
    end
    if hops == LIMITS.merged_hops then
      count(work, 'merged_hops_over')
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

-- What an alias says; of ids that answers make up more than the session's id (made.lua). Nil when there is none.
local function alias_value(work, digest)
  return work.aliases[digest] or redis.call('GET', key('alias', digest)) or nil
end

-- The id in front of what an alias says.
local function id_in(value)
  return string.match(value or '', '^%S+')
end

local function session_of_alias(work, digest)
  local id = id_in(alias_value(work, digest))
  return id and find(work, id)
end

-- Sessions of a conversation, newest first: `most` of them, or, for who wants the newest, a few, since keys may be gone.
local function siblings(work, root, most)
  local all, listed = {}, {}
  for _, session in ipairs(work.opened) do
    if session.root == root then
      table.insert(all, 1, session)
      listed[session.id] = true
    end
  end
  for _, id in ipairs(redis.call('ZREVRANGE', key('sessions', root), 0, (most or 8) - 1)) do
    local session = find(work, id)
    if session and not listed[session.id] then -- one may be a part of another
      table.insert(all, session)
      listed[session.id] = true
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
