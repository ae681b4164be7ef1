-- merge.lua: two open sessions that are one. The older id lives, the other becomes an alias of it. Nothing here writes to
-- Redis; see work.lua.

local function older(one, other)
  return one.started < other.started or (one.started == other.started and one.id < other.id)
end

-- Whether the two have different ids in a place of which the exchange itself says nothing: two conversations, which share
-- what led to both.
local function named_apart(o, session, other)
  local said = {}
  for _, k in ipairs(o.keys) do
    said[k.source or k.digest] = true
  end
  for place, digest in pairs(session.names or {}) do
    local theirs = other.names and other.names[place]
    if theirs and theirs ~= digest and not said[place] then
      return true
    end
  end
  return false
end

local function may_merge(o, session, other, kind, digest, number)
  if other.id == session.id or not is_open(other) or other.shadow ~= session.shadow then
    return false
  end
  if kind == 'conversation' then
    return not held_apart(o, other, number) and not named_apart(o, session, other)
  end
  if is_named(session) and is_named(other) then
    return false
  end
  if of_two_customers(session, other) or of_two_customers(o, other) then
    return false
  end
  if kind ~= 'trace' then
    return true
  end
  -- A trace joins what began in it, and not without end: some processes never begin another.
  local joins = (session.trace_joins or 0) + (other.trace_joins or 0)
  return joins < LIMITS.trace_joins and (session.trace == digest or other.trace == digest)
end

-- What the living session takes over from a set of the other's; returns how many it had already.
local function take_members(additions, name, theirs, limit)
  local members = redis.call('SMEMBERS', theirs)
  table.sort(members)
  local before, fresh = known(name, members), {}
  for _, member in ipairs(members) do
    if not before[member] then
      table.insert(fresh, member)
    end
  end
  table.insert(additions, { members = fresh, room = math.max(limit - redis.call('SCARD', name), 0) })
  return #members - #fresh
end

local function take_counts(work, into, from, kind)
  work.seen[into.root] = work.seen[into.root] or {}
  work.calls[into.id] = work.calls[into.id] or {}
  local twice = 0
  if into.root ~= from.root then
    twice = take_members(work.seen[into.root], key('seen', into.root), key('seen', from.root), LIMITS.messages)
  end
  local calls = take_members(work.calls[into.id], key('calls', into.id), key('calls', from.id), LIMITS.calls)
  local ours, theirs = sides_of(into), sides_of(from)
  local less = math.min(twice, theirs.model)
  -- Of two that only a trace joins, one is the agent's own doing: what it asked there was no user's turn.
  ours.model = kind == 'trace' and math.max(ours.model, theirs.model) or ours.model + theirs.model - less
  ours.user = ours.user + math.max(theirs.user - (twice - less), 0)
  into.sides = ours
  into.turns = turns_of(into)
  into.tool_calls = into.tool_calls + math.max(from.tool_calls - calls, 0)
  into.llm_calls = into.llm_calls + from.llm_calls
  add_tokens(work, into, from)
  into.trace_joins = (into.trace_joins or 0) + (from.trace_joins or 0)
  add_models(work, into, from.models)
end

local function take_state(work, into, from)
  into.started, into.last = math.min(into.started, from.started), math.max(into.last, from.last)
  local deadline = into.deadline
  if RANKS[from.state] > RANKS[into.state] then
    deadline = from.deadline
    into.state, into.reason, into.held = from.state, from.reason, from.held
    into.outcome, into.confirmation = from.outcome, from.confirmation
  end
  into.deadline = math.max(deadline, into.last + timer_ms(into.state, into.terms)) -- a timer never runs backwards
  into.complete = into.complete and from.complete
  into.conversation = into.conversation or from.conversation
  into.names = into.names or {}
  for source, digest in pairs(from.names or {}) do
    into.names[source] = into.names[source] or digest
  end
  name_customer(work, into, from.customer)
  merge_attributes(work, into, from.attributes)
  for _, item in ipairs(from.evidence) do
    prove(work, into, item, item.at)
  end
end

-- What tells more stands before what tells less: an open end before a passed one, who made an id before who handed it on.
local STRENGTH = { e = 3, p = 2, w = 1, m = 2, h = 1 }

-- Of what two sessions that are one have at the same text that which stays. Of two alike the later; but an id was handed
-- on since the first time.
local function stronger(one, other)
  if STRENGTH[one.mark] ~= STRENGTH[other.mark] then
    return STRENGTH[one.mark] > STRENGTH[other.mark] and one or other
  end
  local earlier, later = one, other
  if other.at < one.at then
    earlier, later = other, one
  end
  return one.mark == 'h' and earlier or later
end

local function take_text(work, digest, into, from)
  local theirs, own = entry_at(work, digest, from.id), entry_at(work, digest, into.id)
  if theirs then
    enter(work, digest, into, own and stronger(own, theirs) or theirs, from.id)
  end
end

-- Everything that leads to the one leads to the other from now on.
local function take_names(work, into, from)
  local registered = work.registered[into.id] or {}
  for _, digest in ipairs(redis.call('LRANGE', key('aliases', from.id), 0, -1)) do
    local value = alias_value(work, digest)
    if id_in(value) == from.id then
      work.aliases[digest] = into.id .. string.sub(value, #from.id + 1)
      table.insert(registered, digest)
    end
  end
  work.registered[into.id] = registered
  local texts = redis.call('LRANGE', key('texts', from.id), 0, -1)
  for _, each in ipairs(work.entered) do
    if each.session.id == from.id then
      each.session = into
      table.insert(texts, each.digest)
    end
  end
  for _, digest in ipairs(texts) do
    take_text(work, digest, into, from)
  end
  for _, each in ipairs(work.passed) do
    each.id = each.id == from.id and into.id or each.id
  end
  for _, sibling in ipairs(siblings(work, from.root, LIMITS.siblings)) do
    if sibling.id ~= from.id and into.root ~= from.root then
      sibling.root = into.root
      table.insert(work.moved, sibling)
      change(work, sibling)
    end
  end
end

local function absorb(work, into, from, at, kind)
  local entries_before = redis.call('LRANGE', key('timeline', from.id), 0, -1)
  for _, entry in ipairs(work.notes[from.id] or {}) do
    table.insert(entries_before, entry)
  end
  if is_open(into) then
    take_counts(work, into, from, kind)
    take_state(work, into, from)
    prove(work, into, { rule = 'merge', kind = kind, digest = from.id }, at)
  end
  take_names(work, into, from)
  for _, entry in ipairs(entries_before) do
    note(work, into, cjson.decode(entry)) -- in the chain of the session that lives
  end
  forget(work, from, into)
  count(work, 'opened', -1)
  count(work, 'open', -1)
  count(work, 'merged')
  -- It ends the other's entries: the state is the living session's again. What the bound had dropped of them is no part
  -- of its chain.
  note(work, into, { what = 'merged', at = at, kind = kind, id = from.id, to = into.state,
    omitted = from.omitted > 0 and from.omitted or nil })
end

local function merge(work, session, other, at, kind)
  if older(other, session) then
    absorb(work, other, session, at, kind)
    return other
  end
  absorb(work, session, other, at, kind)
  return session
end

-- Open sessions to which the exchange's keys lead as well, but for those whose time was up before it began. Returns the
-- session that lives.
local function merge_all(work, session, o, own)
  if o.touch or not is_open(session) then
    return session
  end
  local function join(other, kind, digest, number)
    if other and may_merge(o, session, other, kind, digest, number) then
      fire_due(work, other, o.started_ms, own)
      session = is_open(other) and merge(work, session, other, o.at_ms, kind) or session
    end
  end
  for i, k in ipairs(o.keys) do
    if not is_made_up(k) then
      join(session_of_alias(work, k.digest), k.kind, k.digest, i)
    elseif not has(work, session, k) then
      join(giver(work, o, k), k.kind, k.digest, i)
    end
  end
  for _, k in ipairs(o.made) do
    join(taker(work, o, k), k.kind, k.digest)
  end
  join(wanted(work, o), 'text')
  return session
end

-- What was merged when the fact was applied before is merged again, and nothing else. An id that opens only later leads
-- to the living session from the start; one that is over by now has been so before, with the other in it.
local function merge_again(work, session, o)
  for _, id in ipairs(o.merged or {}) do
    local other = find(work, id)
    if not other then
      work.gone[id] = session.id
    elseif other.id ~= session.id and is_open(other) then
      absorb(work, session, other, o.at_ms, 'replay')
    end
  end
  return session
end
