-- texts.lua: the sessions that texts lead to. Nothing here writes to Redis; see work.lua.
--
-- A text leads to every session that came by it (text:<digest>, a hash: session id → mark, time in ms, tip), since
-- conversations may look alike. The marks:
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

-- A first request failed: the next attempt is known by it.
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
