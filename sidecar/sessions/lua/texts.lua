-- texts.lua: the sessions that texts lead to. Nothing here writes to Redis; see work.lua.
--
-- A text leads to every session that came by it (text:<digest>, a hash: session id → mark, time in ms, tip), since
-- conversations may look alike. The marks:
--   e  an open end: the conversation stood there and nothing has followed, or the request was sent and not answered
--   p  passed: something has followed, or the request was answered; tip: where the conversation stood then
--   w  wanted: a session began with a request that follows this, and nobody was known to have answered so
--   f  failed: a first request that opened no session (no id then, but who sent it); it may be sent again
--   m, h  of an id that several answers made: made.lua
-- Of one text, LIMITS.text_sessions are remembered; of one session, LIMITS.texts texts. What is over is counted.
-- What continues takes an open end; so of conversations that look alike each continuation finds one of its own.

local function text_value(mark, at, tip)
  return mark .. int(at) .. ' ' .. (tip or '')
end

local function in_time(one, other)
  return one.at < other.at or (one.at == other.at and one.id < other.id)
end

-- The sessions that came by a text: {{id, mark, at, tip} …}.
local function entries(work, digest)
  if not work.entries[digest] then
    local found, raw = {}, redis.call('HGETALL', key('text', digest))
    for i = 1, #raw, 2 do
      local mark, at, tip = string.match(raw[i + 1], '^(%a)(%d+) (.*)$')
      table.insert(found, { id = raw[i], mark = mark, at = tonumber(at), tip = tip })
    end
    table.sort(found, in_time)
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

-- Whether so many came by a text that others may have been dropped from it: then it tells nobody from them.
local function is_crowded(work, digest)
  return #entries(work, digest) >= LIMITS.text_sessions
end

-- All that came by a text, open ends and passed ones: {session id = {session, entry}}, and how many.
local function passers(work, o, digest)
  local found, n = {}, 0
  if is_crowded(work, digest) then
    return found, n
  end
  for _, entry in ipairs(entries(work, digest)) do
    local session = entry.mark ~= 'w' and find(work, entry.id)
    if session and not found[session.id] and may_be(o, session) then
      found[session.id], n = { session = session, entry = entry }, n + 1
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

-- What the session has at a text; nil when it did not come by it.
local function entry_at(work, digest, id)
  for _, entry in ipairs(entries(work, digest)) do
    if entry.id == id then
      return entry
    end
  end
  return nil
end

local function mark_at(work, digest, id)
  local entry = entry_at(work, digest, id)
  return entry and entry.mark
end

-- From now on the session has this at a text, besides what its own exchange brings; `instead` of a part of it.
local function enter(work, digest, session, entry, instead)
  local all = { { id = session.id, mark = entry.mark, at = entry.at, tip = entry.tip } }
  for _, other in ipairs(entries(work, digest)) do
    if other.id ~= session.id and other.id ~= instead then
      table.insert(all, other)
    end
  end
  table.sort(all, in_time)
  work.entries[digest] = all
  local value = text_value(entry.mark, entry.at, entry.tip)
  table.insert(work.entered, { session = session, digest = digest, value = value, instead = instead })
end

local function pass(work, digest, id)
  if digest and digest ~= '' and mark_at(work, digest, id) == 'e' then
    table.insert(work.passed, { digest = digest, id = id })
  end
end

-- Whether the conversation stands where it came by the text, or at the answer that it got there: nothing has followed.
local function stands(work, passer)
  local entry = passer.entry
  return entry.mark == 'e' or (entry.tip ~= '' and mark_at(work, entry.tip, passer.session.id) == 'e')
end

-- Who came by all of these texts, as far as there is anybody; and how many.
local function narrow(work, o, digests)
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
  return pool, n
end

-- Who gave the last answers of a history, and how many did. One sentence may be anybody's: the conversation that is meant
-- gave more than half of those answers that can tell, and none gave more. With its question an answer tells more than
-- alone.
local function answerers(work, o)
  local given, first, telling, most = {}, {}, 0, 0
  for _, digests in ipairs(o.thread.answers or {}) do
    local pool, n, crowd = {}, 0, false
    for _, digest in ipairs(digests) do
      if n == 0 and not crowd then
        crowd = is_crowded(work, digest)
        pool, n = passers(work, o, digest)
      end
    end
    telling = telling + (crowd and 0 or 1)
    local roots = {}
    for id, passer in pairs(pool) do
      roots[passer.session.root] = true
      first[id] = first[id] or passer
    end
    for root in pairs(roots) do
      given[root] = (given[root] or 0) + 1
      most = math.max(most, given[root])
    end
  end
  local pool, n = {}, 0
  for id, passer in pairs(first) do
    if given[passer.session.root] == most and most * 2 > telling then
      pool[id], n = passer, n + 1
    end
  end
  return pool, n
end

-- The one that stands there, then the one that was there last.
local function latest(work, pool)
  local best, best_stands
  for _, passer in pairs(pool) do
    local at, ends = passer.entry.at, stands(work, passer)
    local best_at = best and best.entry.at
    if not best or (ends and not best_stands)
      or (ends == best_stands and (at > best_at or (at == best_at and passer.session.id < best.session.id))) then
      best, best_stands = passer, ends
    end
  end
  return best
end

-- Of the one conversation that alone stands there, or is the only one. Nil: nothing tells which of several it is.
local function only_one(work, pool)
  local root, at, several, several_at
  for _, passer in pairs(pool) do
    local its = passer.session.root
    several = several or (root ~= nil and root ~= its)
    root = root or its
    if stands(work, passer) then
      several_at = several_at or (at ~= nil and at ~= its)
      at = at or its
    end
  end
  local best = latest(work, pool)
  return best and (not several or (at and not several_at)) and best or nil
end

-- A history that leads to no open end: a branch, or one that was trimmed or touched up. A history known as a whole may
-- have been that of several, of whom the last is the likeliest to say something else. One known by parts is nobody's
-- unless they tell whose: an answer that many got is no reason to put two conversations together.
local function recall(work, o)
  local t = o.thread
  local pool, n = narrow(work, o, { t.asked, t.follows })
  local best
  if n > 0 then
    best = latest(work, pool)
  else
    pool, n = narrow(work, o, t.recalls)
    if n ~= 1 then
      local said, m = answerers(work, o)
      local both, k = common(said, pool)
      if k > 0 then
        pool, n = both, k
      elseif n == 0 then
        pool, n = said, m
      end
    end
    best = only_one(work, pool)
  end
  if n > 1 then
    count(work, best and 'ambiguous' or 'ambiguous_apart')
  end
  if best then
    pass(work, best.entry.tip, best.session.id)
    return best.session
  end
  return nil
end

-- Whether the exchange takes up where the session's conversation stands, and asks there what it had not asked: then what is
-- said now was not said before. By its whole history, or, where the session does not know that, by the newest answer.
local function takes_up(work, session, o)
  local t = o.thread
  if not session or not t or not t.follows or mark_at(work, t.asked, session.id) then
    return false
  end
  local mark = mark_at(work, t.follows, session.id)
  if mark then
    return mark == 'e'
  end
  for _, digest in ipairs({ t.recalls[1] or '', unpack((t.answers or {})[1] or {}) }) do
    local entry = entry_at(work, digest, session.id)
    if entry and stands(work, { session = session, entry = entry }) then
      pass(work, entry.tip, session.id)
      return true
    end
  end
  return false
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
  local since = o.started_ms - LIMITS.repeat_minutes * 60000
  for _, entry in ipairs(entries(work, o.thread.asked)) do
    if entry.mark == 'f' and entry.at >= since and entry.at <= o.started_ms + CLOCKS_MS then
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

-- Whether the session has the answer to a later attempt of the same request, applied by a replica that was quicker.
local function answered_since(work, session, o)
  local entry = entry_at(work, o.thread.asked, session.id)
  return entry ~= nil and entry.mark == 'p' and entry.at >= o.at_ms
end

-- Whether the session has gone on already from what the exchange reaches: it began with what follows.
local function is_wanted(work, session, o)
  local entry = entry_at(work, o.thread.reaches, session.id)
  return entry ~= nil and entry.mark == 'w' and entry.at >= o.at_ms
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
  if t.reaches or not answered_since(work, session, o) then
    put(t.asked, t.reaches and 'p' or 'e', o.at_ms, t.reaches)
  end
  if t.reaches then
    put(t.reaches, is_wanted(work, session, o) and 'p' or 'e', o.at_ms)
    for _, digest in ipairs(t.makes) do
      put(digest, 'p', o.at_ms, t.reaches)
    end
  end
  change(work, session)
end
