#!lua flags=allow-oom
-- heartbeat.lua: a producer says that it lives and up to when all that it knows of is applied.
--
-- KEYS[1]  the tenant's prefix
-- ARGV[1]  beat | hold | leave | prune
--   beat:  ARGV[2] generation proposed, ARGV[3] producer, ARGV[4] its mark (event time, ms), ARGV[5] its clock (ms),
--          ARGV[6] copies it dropped so far (-1: not known), ARGV[7] the generation that it knows ('': none),
--          ARGV[8] 1 while it applies its journal again, else ''
--   hold:  ARGV[2…] pairs producer, clock: not heard of in this data yet, and to be waited for from its beginning on
--   leave: ARGV[2…] producers that shut down cleanly: nobody waits for them any more
--   prune: ARGV[2…] pairs producer, clock at which it was seen to stand still
-- returns  beat: {generation}; else {number changed}
-- A new generation means that the data was lost (FLUSHALL). Who knows the former one has everything yet to apply again,
-- whatever it believes: its mark is 0, and others that apply their journals again wait for it (replay.lua).

local verb = ARGV[1]

if verb == 'beat' then
  redis.call('SET', key('generation'), ARGV[2], 'NX')
  if tonumber(ARGV[6]) >= 0 then
    -- A queue outlives its sidecar and counts on: what it had dropped when its sidecar left is in the total already.
    local folded = tonumber(redis.call('GET', key('folded', ARGV[3])) or '0')
    redis.call('HSET', key('dropped'), ARGV[3], int(math.max(tonumber(ARGV[6]) - folded, 0)))
  end
  local generation = redis.call('GET', key('generation'))
  local current = ARGV[7] == '' or ARGV[7] == generation
  redis.call('ZADD', key('marks'), current and ARGV[4] or '0', ARGV[3])
  redis.call('HSET', key('beats'), ARGV[3], ARGV[5])
  if not current then
    redis.call('ZADD', key('replays'), 'NX', '0', ARGV[3])
  elseif ARGV[7] ~= '' and ARGV[8] == '' then
    redis.call('ZREM', key('replays'), ARGV[3])
  end
  return { generation }
end

if verb == 'hold' then
  local held = 0
  for i = 2, #ARGV, 2 do
    held = held + redis.call('ZADD', key('marks'), 'NX', '0', ARGV[i])
    redis.call('HSETNX', key('beats'), ARGV[i], ARGV[i + 1])
    redis.call('ZADD', key('replays'), 'NX', '0', ARGV[i])
  end
  return { held }
end

local removed = 0
local function remove(producer)
  local dropped = tonumber(redis.call('HGET', key('dropped'), producer) or '0')
  if dropped > 0 then
    redis.call('HINCRBY', key('dropped'), '*', int(dropped))
    redis.call('INCRBY', key('folded', producer), int(dropped))
    redis.call('PEXPIRE', key('folded', producer), int(LIMITS.number_days * DAY))
  end
  redis.call('HDEL', key('dropped'), producer)
  removed = removed + redis.call('ZREM', key('marks'), producer)
  redis.call('HDEL', key('beats'), producer)
  redis.call('ZREM', key('replays'), producer)
end

if verb == 'leave' then
  for i = 2, #ARGV do
    remove(ARGV[i])
  end
else
  for i = 2, #ARGV, 2 do
    if redis.call('HGET', key('beats'), ARGV[i]) == ARGV[i + 1] then
      remove(ARGV[i])
      redis.call('HINCRBY', key('counters'), 'producers_pruned', 1)
    end
  end
end
return { removed }
