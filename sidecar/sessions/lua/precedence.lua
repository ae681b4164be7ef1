-- precedence.lua: what may lead an exchange to a session. Nothing joins what something stronger holds apart: an explicit
-- id before what an answer made up, that before texts, these before the trace.

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

local function of_two_customers(one, other)
  return one.customer ~= nil and other.customer ~= nil and one.customer ~= other.customer
end

-- Whether anything but an explicit id may lead the exchange to the session. Of two customers who say the same, whose
-- requests have the same id, or whose matters one job handles, each has a conversation of his own.
local function may_be(o, session)
  return not (o.conversation and is_named(session)) and not of_two_customers(o, session)
end

-- Whether the exchange's key number `number` may.
local function may_join(o, session, kind, number)
  if kind == 'conversation' then
    return not held_apart(o, session, number)
  end
  return may_be(o, session)
end
