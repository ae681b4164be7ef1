#!lua flags=allow-oom
-- statement.lua: once an hour, one statement of the tenant's counters goes into the outbox, whichever replica asks first.
--
-- KEYS[1]  the tenant's prefix
-- ARGV[1]  the hour, as 2026-11-22T10      ARGV[2] its time, Unix ms      ARGV[3] tenant
-- ARGV[4]  most entries in the outbox        ARGV[5] now, Unix ms
-- returns  1 when this call made the statement, 2 when one did before, 0 when there is none: before the first session
--          there is nothing to state, and a full outbox has no room for it

-- How many sessions became final in each of the newest hours, by the times of their outcomes, and in all before: when a
-- session was counted and what time its outcome has are two things, and the second is all that the ledger can see. What
-- is put together here stays so: a late one of an older hour makes it the oldest again, and goes the same way.
local function by_hour()
  local raw, hours, found = redis.call('HGETALL', key('finalized')), {}, {}
  local before, since = 0, tonumber(redis.call('GET', key('told-since')) or 0)
  for i = 1, #raw, 2 do
    if raw[i] == 'before' then
      before = tonumber(raw[i + 1])
    else
      table.insert(hours, tonumber(raw[i]))
      found[raw[i]] = tonumber(raw[i + 1])
    end
  end
  table.sort(hours)
  for i, number in ipairs(hours) do
    if number < since or i <= #hours - LIMITS.stated_hours then
      local hour = int(number)
      before = redis.call('HINCRBY', key('finalized'), 'before', found[hour])
      redis.call('HDEL', key('finalized'), hour)
      found[hour] = nil
    end
  end
  return found, before
end

-- Puts together whatever is over by now. Hours are told apart again from the one after the next on: no session that is
-- over has a later time, as clocks differ by minutes.
local function begin_anew(total)
  redis.call('DEL', key('finalized'))
  redis.call('HSET', key('finalized'), 'before', int(total))
  redis.call('SET', key('told-since'), int(math.floor(tonumber(ARGV[5]) / HOUR) + 2))
  return {}, total
end

-- The hours that are to be stated where `total` sessions are over: as many, in all. When they are not at the first
-- statement, some became final under a version that wrote no hours down: that is put right. Later it is a fault, or such
-- a version runs beside this one. Then they are stated as they are, once, so that the ledger sees it and says so; what is
-- stated next adds up again, unless the fault is still there.
local function adding_up(total)
  local first = redis.call('EXISTS', key('told-since')) == 0
  local hours, before = by_hour()
  local sum = before
  for _, number in pairs(hours) do
    sum = sum + number
  end
  if sum ~= total and first then
    return begin_anew(total)
  elseif sum ~= total then
    begin_anew(total)
  elseif first then
    redis.call('SET', key('told-since'), '0')
  end
  return hours, before
end

local name = key('statement', ARGV[1])
if redis.call('EXISTS', name) == 1 then
  return 2
end
if redis.call('XLEN', key('outbox')) >= tonumber(ARGV[4]) then
  return 0
end
local counters = { opened = 0, open = 0 }
local finalized, total = {}, 0
local raw = redis.call('HGETALL', key('counters'))
for i = 1, #raw, 2 do
  local state = string.match(raw[i], '^finalized:(.+)$')
  if state then
    finalized[state] = tonumber(raw[i + 1])
    total = total + finalized[state]
  else
    counters[raw[i]] = tonumber(raw[i + 1])
  end
end
if counters.opened == 0 then
  return 0
end
local dropped = 0
for _, copies in ipairs(redis.call('HVALS', key('dropped'))) do
  dropped = dropped + tonumber(copies)
end
local hours, before = adding_up(total)
local body = cjson.encode({
  v = 1, tenant = ARGV[3], hour = ARGV[1], time_ms = tonumber(ARGV[2]), at_ms = tonumber(ARGV[5]),
  generation = redis.call('GET', key('generation')) or '', counters = counters, finalized = finalized,
  dropped = dropped, hours = hours, before = before,
})
redis.call('XADD', key('outbox'), '*', 'kind', 'statement', 'body', body)
redis.call('SET', name, '1', 'PX', int(2 * DAY))
return 1
