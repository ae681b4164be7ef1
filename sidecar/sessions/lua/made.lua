-- made.lua: ids that answers make up (of responses, of tool calls), and whom they lead to when they are handed on. Nothing
-- here writes to Redis; see work.lua.
--
-- A server that means it makes an id once. Others draw from a thousand, and a cache gives one answer, with its ids, to
-- many. So what is handed on leads to who made it, but two that made the same have nothing in common. What counts:
--   m  the session's answer made the id; the time of that
--   h  the session handed it on, and nobody was known to have made it: the answer is still to come, from a replica that
--      is behind, or has passed where nobody watched; since when
-- alias:<digest> says so of one session. Once two have made the id it is SHARED, and text:<digest> (texts.lua) says so of
-- each. A tip here is whose credentials the call had (o.caller).

local SHARED = '*'

local function is_made_up(k)
  return k.kind == 'response' or k.kind == 'tool_call'
end

-- The session that alone has the id: {id, mark, at, tip}; of one that is shared SHARED as its id.
local function holder_of(work, digest)
  local raw = alias_value(work, digest)
  local id, mark, at, tip = string.match(raw or '', '^(%S+) (%a)(%d+) (.*)$')
  return raw and { id = id or raw, mark = mark or 'm', at = tonumber(at) or 0, tip = tip or '' } or nil
end

-- All that have the id: {{session, mark, at, tip} …}. Nobody, when so many have made it that some were dropped.
local function holders(work, digest)
  local one = holder_of(work, digest)
  local list = { one }
  if one and one.id == SHARED then
    list = is_crowded(work, digest) and {} or entries(work, digest)
  end
  local found = {}
  for _, each in ipairs(list) do
    local session = find(work, each.id)
    if session then
      table.insert(found, { session = session, mark = each.mark, at = each.at, tip = each.tip })
    end
  end
  return found
end

local function has(work, session, k)
  for _, holder in ipairs(holders(work, k.digest)) do
    if holder.session.root == session.root then
      return true
    end
  end
  return false
end

-- Whether the history that the exchange brings is one of the session's.
local function shares_text(work, o, session)
  local t = o.thread or {}
  local newest = (t.answers or {})[1] or {}
  for _, digests in ipairs({ { t.follows }, t.recalls or {}, newest }) do
    for _, digest in ipairs(digests) do
      if mark_at(work, digest, session.id) then
        return true
      end
    end
  end
  return false
end

-- What tells several that made the same id apart, the surest first.
local TELLS = {
  function(_, o, holder)
    return o.customer ~= nil and holder.session.customer == o.customer
  end,
  function(work, o, holder)
    return shares_text(work, o, holder.session)
  end,
  function(_, o, holder)
    return holder.tip == (o.caller or '')
  end,
}

local function those(pool, holds)
  local kept = {}
  for _, holder in ipairs(pool) do
    if holds(holder) then
      table.insert(kept, holder)
    end
  end
  return kept
end

-- The newest session of the one conversation that all of them are of; nil when they are of several.
local function one_conversation(pool)
  local best
  for _, holder in ipairs(pool) do
    local session = holder.session
    if best and best.root ~= session.root then
      return nil
    end
    best = (not best or session.started > best.started) and session or best
  end
  return best
end

-- The session that an id which the exchange hands on, its key number `number`, leads to. Nil: to none, or to several of
-- which nothing tells which is meant. One that only handed it on as well has it from the same answer if the same
-- credentials were given; else it may be from another.
local function giver(work, o, k, number)
  local pool = those(holders(work, k.digest), function(holder)
    local may = may_join(o, holder.session, k.kind, number) and not of_two_customers(o, holder.session)
    return may and (holder.mark == 'm' or holder.tip == (o.caller or ''))
  end)
  for _, tells in ipairs(TELLS) do
    if one_conversation(pool) then
      break
    end
    local fitting = those(pool, function(holder)
      return tells(work, o, holder)
    end)
    pool = #fitting > 0 and fitting or pool
  end
  return one_conversation(pool)
end

-- Whether no other replica's facts could lead the exchange away from the giver: it stands where the exchange's history
-- ends, or histories cannot be compared. Else another may have got the same id with a cached answer that is not applied
-- yet.
local function is_sure(work, o, session)
  local follows = o.thread and o.thread.follows
  return not follows or is_named(session) or mark_at(work, follows, session.id) == 'e'
end

-- The session that handed on what this answer has made, before the answer was known here. The answer was there before it
-- was handed on, and nobody else has made it.
local function taker(work, o, k)
  local pool = holders(work, k.digest)
  local taking = those(pool, function(holder)
    local may = may_join(o, holder.session, k.kind) and not of_two_customers(o, holder.session)
    return may and holder.mark == 'h' and holder.at >= o.at_ms - CLOCKS_MS and holder.tip == (o.caller or '')
  end)
  return #taking == #pool and one_conversation(taking) or nil
end

-- The id is the session's, made by its answer or handed on by its request. Returns whether it leads to it from now on.
local function register_made_up(work, session, o, k, mark)
  local at = mark == 'm' and o.at_ms or o.started_ms
  local function put(value)
    work.aliases[k.digest] = value
    table.insert(work.registered[session.id], k.digest)
  end
  local function share(with, value)
    work.texts[with.id] = work.texts[with.id] or {}
    table.insert(work.texts[with.id], { digest = k.digest, value = value })
    change(work, with)
  end
  local own = text_value(mark, at, o.caller)
  local held = holder_of(work, k.digest)
  if held and held.id == SHARED then
    local before = mark_at(work, k.digest, session.id)
    if before ~= 'm' and before ~= mark then
      if mark == 'm' then
        count(work, 'made_twice')
      end
      share(session, own)
      put(SHARED)
    end
    return false
  end
  local other = held and find(work, held.id)
  if not other then
    put(session.id .. ' ' .. own)
    return true
  end
  if other.root == session.root then
    local made = held.mark == 'm' or mark == 'm'
    if (made and held.mark == 'h') or (other.id ~= session.id and not is_open(other) and is_open(session)) then
      put(session.id .. ' ' .. text_value(made and 'm' or 'h', held.mark == mark and held.at or at, o.caller))
      return other.id ~= session.id
    end
    table.insert(work.used[session.id], k.digest)
  elseif mark == 'm' then
    count(work, 'made_twice')
    share(other, text_value(held.mark, held.at, held.tip))
    share(session, own)
    put(SHARED)
  elseif is_open(other) then
    count(work, 'keys_of_other_sessions')
  end
  return false
end
