-- made.lua: ids that answers make up (of responses, of tool calls), and whom they lead to when they are handed on. Nothing
-- here writes to Redis; see work.lua.
--
-- A server that means it makes an id once. Others draw from a thousand, and a cache gives one answer, with its ids, to
-- many. So what is handed on leads to who made it, but two that made the same have nothing in common. What counts:
--   m  the session's answer made the id; the time of that
--   h  the session handed it on, and nobody was known to have made it: the answer is still to come, from a replica that
--      is behind, or has passed where nobody watched; since when
-- alias:<digest> says so of one session. Once two have made the id there is text:<digest> (texts.lua) instead, which says
-- so of each, of LIMITS.text_sessions at most. A tip here is whose credentials the call had (o.caller).

local function is_made_up(k)
  return k.kind == 'response' or k.kind == 'tool_call'
end

local function is_shared(work, digest)
  return #entries(work, digest) > 0
end

-- The session that alone has the id, as an entry of a text: {id, mark, at, tip}.
local function holder_of(work, digest)
  local raw = alias_value(work, digest)
  local id, mark, at, tip = string.match(raw or '', '^(%S+) (%a)(%d+) (.*)$')
  return raw and { id = id or raw, mark = mark or 'm', at = tonumber(at) or 0, tip = tip or '' } or nil
end

-- All that have the id: {{id, session, mark, at, tip} …}. One whose session is forgotten (nil) may be meant as well.
local function holders(work, digest)
  local found = {}
  for _, each in ipairs(is_shared(work, digest) and entries(work, digest) or { holder_of(work, digest) }) do
    local session = find(work, each.id)
    table.insert(found, { id = each.id, session = session, mark = each.mark, at = each.at, tip = each.tip })
  end
  return found
end

local function is_of(holder, session)
  return holder.session ~= nil and holder.session.root == session.root
end

local function has(work, session, k)
  for _, holder in ipairs(holders(work, k.digest)) do
    if is_of(holder, session) then
      return true
    end
  end
  return false
end

-- Whether the history that the exchange brings is one of the session's.
local function shares_text(work, o, id)
  local t = o.thread or {}
  local newest = (t.answers or {})[1] or {}
  for _, digests in ipairs({ { t.follows }, t.recalls or {}, newest }) do
    for _, digest in ipairs(digests) do
      if mark_at(work, digest, id) then
        return true
      end
    end
  end
  return false
end

local function of_its_customer(_, o, holder)
  return o.customer ~= nil and holder.session ~= nil and holder.session.customer == o.customer
end

-- What tells several that made the same id apart, the surest first.
local TELLS = {
  of_its_customer,
  function(work, o, holder)
    return shares_text(work, o, holder.id)
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

-- The newest session of the one conversation that all of them are of; nil when they are not, or none is left.
local function one_conversation(pool)
  local best
  for _, holder in ipairs(pool) do
    local session = holder.session
    if not session or (best and best.root ~= session.root) then
      return nil
    end
    best = (not best or session.started > best.started) and session or best
  end
  return best
end

-- The session that an id which the exchange hands on leads to. Nil: to none, or to several of which nothing tells which is
-- meant. One that only handed it on as well has it from the same answer if the same credentials were given; else it may
-- be from another.
local function giver(work, o, k)
  if is_crowded(work, k.digest) then
    return nil
  end
  local pool = those(holders(work, k.digest), function(holder)
    local may = not holder.session or may_be(o, holder.session)
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

-- Whether the id was made, or handed on, before the answer was there.
local function was_there_before(o, holder)
  return holder.at < o.at_ms - CLOCKS_MS
end

-- The session that handed on what this answer has made, before the answer was known here. The answer was there before it
-- was handed on, and nobody else has made it.
local function taker(work, o, k)
  local pool = holders(work, k.digest)
  local taking = those(pool, function(holder)
    local from_it = holder.mark == 'h' and not was_there_before(o, holder) and holder.tip == (o.caller or '')
    return from_it and holder.session ~= nil and may_be(o, holder.session)
  end)
  return #taking == #pool and not is_crowded(work, k.digest) and one_conversation(taking) or nil
end

-- The session that a signal by an id is for; of several that the id leads to the one of the signal's customer. Nil with
-- true: nothing tells which of several is meant.
local function addressed(work, signal)
  local pool = holders(work, signal.alias)
  local session = one_conversation(pool) or one_conversation(those(pool, function(holder)
    return of_its_customer(work, signal.effect, holder)
  end))
  if session and not is_crowded(work, signal.alias) then
    return session, false
  end
  return nil, #those(pool, function(holder)
    return holder.session ~= nil
  end) > 0
end

-- Whether another conversation's answer had made the id as well. What was handed on before this answer was there was made
-- by another, seen or not.
local function is_made_again(work, session, o, k)
  if mark_at(work, k.digest, session.id) == 'm' then
    return false
  end
  for _, holder in ipairs(holders(work, k.digest)) do
    if not is_of(holder, session) and (holder.mark == 'm' or was_there_before(o, holder)) then
      return true
    end
  end
  return false
end

-- The id is the session's, made by its answer or handed on by its request. Returns whether it leads to it from now on.
local function register_made_up(work, session, o, k, mark)
  local own = { id = session.id, mark = mark, at = mark == 'm' and o.at_ms or o.started_ms, tip = o.caller or '' }
  local function put(entry)
    work.aliases[k.digest] = session.id .. ' ' .. text_value(entry.mark, entry.at, entry.tip)
    table.insert(work.registered[session.id], k.digest)
  end
  if mark == 'm' and is_made_again(work, session, o, k) then
    count(work, 'made_twice')
  end
  if is_shared(work, k.digest) then
    local before = mark_at(work, k.digest, session.id)
    if before ~= 'm' and before ~= mark then
      enter(work, k.digest, session, own)
    end
    return false
  end
  local held = holder_of(work, k.digest)
  local other = held and find(work, held.id)
  if not other then
    put(own)
    return true
  end
  if other.root == session.root then
    local made = held.mark == 'm' or mark == 'm'
    if (made and held.mark == 'h') or (other.id ~= session.id and not is_open(other) and is_open(session)) then
      put({ mark = made and 'm' or 'h', at = held.mark == mark and held.at or own.at, tip = own.tip })
      return other.id ~= session.id
    end
    table.insert(work.used[session.id], k.digest)
  elseif mark == 'm' then
    enter(work, k.digest, other, held)
    enter(work, k.digest, session, own)
    work.shared[k.digest] = other
  elseif is_open(other) then
    count(work, 'keys_of_other_sessions')
  end
  return false
end
