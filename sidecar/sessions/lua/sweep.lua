#!lua flags=allow-oom
-- sweep.lua: fires deadlines that every live producer has come past. Checks and fires in one step, so that replicas
-- need no lease. It may run when Redis is out of memory: finishing sessions is what frees it.
--
-- KEYS[1]  the tenant's prefix
-- ARGV[1]  most sessions to fire      ARGV[2] most entries in the outbox
-- returns  {fired, 1 when more are due, 1 when the outbox is full, least mark, whose it is, "session revision state" …}
-- Without any live producer nothing is fired: nobody can say that no traffic waits.

local limit, outbox_max = tonumber(ARGV[1]), tonumber(ARGV[2])

local marks = redis.call('ZRANGE', key('marks'), 0, 0, 'WITHSCORES')
local least = tonumber(marks[2])
if not least then
  return { 0, 0, 0, '0', '' }
end

local fired, full, lines = 0, 0, {}
local due = redis.call('ZRANGEBYSCORE', key('deadlines'), '-inf', int(least), 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  local work = new_work()
  local session = find(work, id)
  if not session then
    -- Its keys expired while it waited for a producer: it gets no outcome, and the books say so.
    redis.call('ZREM', key('deadlines'), id)
    redis.call('HINCRBY', key('counters'), 'sessions_lost', 1)
    redis.call('HINCRBY', key('counters'), 'open', -1)
  elseif not is_open(session) then
    redis.call('ZREM', key('deadlines'), id)
  elseif session.deadline > least then
    redis.call('ZADD', key('deadlines'), int(session.deadline), id)
  else
    fire(work, session)
    if not fits(work, outbox_max) then
      full = 1
      break
    end
    commit(work)
    fired = fired + 1
    for _, line in ipairs(told(work)) do
      table.insert(lines, line)
    end
  end
end
return { fired, (#due == limit and full == 0) and 1 or 0, full, int(least), marks[1], unpack(lines) }
