-- counts.lua: what an exchange adds to its session: messages not seen before, calls, tokens. Nothing here writes to Redis;
-- see work.lua.

-- The user messages of the exchange that the conversation had not seen, and how many more its set may hold. Of one that
-- is known (`located`) only what was said since the last answer is new: the rest is history, maybe in other words. And
-- what follows an answer that nothing had followed (`takes`) is new even in words that were said before: of a history
-- that was cut down or branched, the number of a "yes" does not tell.
local function unseen_messages(work, session, o, located, takes)
  local room = LIMITS.messages
  local before = {}
  local first = located and o.said_now and #o.user_messages - o.said_now + 1 or 1
  if session and #o.user_messages > 0 then
    room = math.max(room - redis.call('SCARD', key('seen', session.root)), 0)
    before = known(key('seen', session.root), o.user_messages)
    for _, addition in ipairs(work.seen[session.root] or {}) do
      for _, member in ipairs(addition.members) do
        before[member] = true
      end
    end
  end
  local fresh = {}
  for i, message in ipairs(o.user_messages) do
    if i >= first and (not before[message] or (takes and o.said_now)) then
      before[message] = true
      table.insert(fresh, message)
    end
  end
  return fresh, room
end

local function count_exchange(work, session, o, fresh, room, how)
  local turns = #fresh
  if room < turns then
    turns = math.max(room, math.min(turns, 1))
    count(work, 'messages_over')
  end
  if how == 'trace' and not o.user_side then
    turns = 0 -- what the agent says to an agent of its own
  end
  local sides = sides_of(session)
  sides[o.user_side and 'user' or 'model'] = sides[o.user_side and 'user' or 'model'] + turns
  session.sides = sides
  session.turns = turns_of(session)
  session.llm_calls = session.llm_calls + o.llm_calls
  add_tokens(work, session, o)
  add_models(work, session, o.models)
  name_customer(work, session, o.customer)
  session.conversation = session.conversation or o.conversation
  if not o.complete then
    session.complete = false
  end
  note(work, session, { what = 'exchange', at = o.at_ms, api = o.api, turns = turns, digests = o.digests,
    aborted = o.aborted, complete = o.complete, found_by = how })
end

-- Tool calls count, and their effects apply, once per call id in a session. Returns the calls known before.
local function count_calls(work, session, o, trailing)
  local all = {}
  for _, call in ipairs(o.tool_calls) do
    table.insert(all, call)
  end
  local own = #all
  for _, effect in ipairs(o.effects) do
    if effect.call ~= '' then
      table.insert(all, effect.call)
    end
  end
  if own == 0 and #all == 0 then
    return {}
  end
  local before = known(key('calls', session.id), all)
  local additions = work.calls[session.id] or {}
  for _, addition in ipairs(additions) do
    for _, member in ipairs(addition.members) do
      before[member] = true
    end
  end
  local fresh, done = {}, {}
  for i, call in ipairs(all) do
    if not before[call] and not done[call] then
      done[call] = true
      table.insert(fresh, call)
      if i <= own and not trailing then
        session.tool_calls = session.tool_calls + 1
      end
    end
  end
  local room = math.max(LIMITS.calls - redis.call('SCARD', key('calls', session.id)), 0)
  if room < #fresh then
    count(work, 'calls_over', #fresh - room)
  end
  table.insert(additions, { members = fresh, room = room })
  work.calls[session.id] = additions
  change(work, session)
  return before
end

-- How the deployment is wired: whether calls bring an id, name a customer, and by what they are found.
local function count_wiring(work, o, how)
  count(work, 'exchanges')
  count(work, 'found_by:' .. how)
  if o.conversation then
    count(work, 'exchanges_with_id')
  end
  if o.customer then
    count(work, 'exchanges_with_customer')
  end
end
