#!lua flags=allow-oom
-- letters.lua: moves an entry between the outbox and the dead letters, in one step, so that it is never in neither.
--
-- KEYS[1]  the tenant's prefix
-- ARGV[1]  bury:   ARGV[2] outbox entry, ARGV[3] consumer group, ARGV[4] reason, ARGV[5] most dead letters
--          revive: ARGV[2] most entries in the outbox, ARGV[3] most letters to move at once
--          tidy:   ARGV[2] consumer group, ARGV[3] ms: consumers that were idle for longer and hold no entry are deleted
-- returns  number moved or deleted; bury gives -1 when there is no room for another dead letter (the entry stays in the outbox)

if ARGV[1] == 'bury' then
  local entry = redis.call('XRANGE', key('outbox'), ARGV[2], ARGV[2])[1]
  if not entry then
    return 0
  end
  if redis.call('XLEN', key('dead')) >= tonumber(ARGV[5]) then
    return -1
  end
  local fields = entry[2]
  table.insert(fields, 'why')
  table.insert(fields, ARGV[4])
  redis.call('XADD', key('dead'), '*', unpack(fields))
  redis.call('XACK', key('outbox'), ARGV[3], ARGV[2])
  redis.call('XDEL', key('outbox'), ARGV[2])
  redis.call('HINCRBY', key('counters'), 'dead_letters', 1)
  return 1
end

if ARGV[1] == 'tidy' then
  local deleted = 0
  if redis.call('EXISTS', key('outbox')) == 0 then
    return 0
  end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key('outbox'))) do
    if group[2] == ARGV[2] then
      for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', key('outbox'), ARGV[2])) do
        local about = {}
        for i = 1, #consumer, 2 do
          about[consumer[i]] = consumer[i + 1]
        end
        if about.pending == 0 and about.idle > tonumber(ARGV[3]) then
          redis.call('XGROUP', 'DELCONSUMER', key('outbox'), ARGV[2], about.name)
          deleted = deleted + 1
        end
      end
    end
  end
  return deleted
end

local moved = 0
for _, entry in ipairs(redis.call('XRANGE', key('dead'), '-', '+', 'COUNT', tonumber(ARGV[3]))) do
  if redis.call('XLEN', key('outbox')) >= tonumber(ARGV[2]) then
    break
  end
  local fields = {}
  for i = 1, #entry[2], 2 do
    if entry[2][i] ~= 'why' then
      table.insert(fields, entry[2][i])
      table.insert(fields, entry[2][i + 1])
    end
  end
  redis.call('XADD', key('outbox'), '*', unpack(fields))
  redis.call('XDEL', key('dead'), entry[1])
  moved = moved + 1
end
return moved
