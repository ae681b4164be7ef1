#!lua flags=allow-oom
-- replay.lua: after a loss of data, says how far this replica has come with applying its journal again, and asks how far
-- the others have.
--
-- KEYS[1]  the tenant's prefix
-- ARGV[1]  the producer that asks
-- ARGV[2]  event time, ms, at which the next fact arrived that it applies again ('': it has none left)
-- ARGV[3]  its mark: event time, ms, up to which it has applied all ('': as its last heartbeat said)
-- returns  {the least time of a next fact of all others, or '' when none is left}
-- Whose next fact is the earliest goes on, so that the facts of all journals are applied in the order of their arrival.
-- Who has none left is waited for until its next heartbeat: only that says up to when it knows all.

if ARGV[2] ~= '' then
  redis.call('ZADD', key('replays'), ARGV[2], ARGV[1])
  redis.call('ZADD', key('marks'), 'XX', ARGV[3], ARGV[1])
end
local first = redis.call('ZRANGE', key('replays'), 0, 1, 'WITHSCORES')
for i = 1, #first, 2 do
  if first[i] ~= ARGV[1] then
    return { first[i + 1] }
  end
end
return { '' }
