#!lua flags=allow-oom
-- refresh.lua: lengthens the life of sessions that are due, but wait for a producer that does not come on: while they
-- wait, nothing else touches their keys.
--
-- KEYS[1]  the tenant's prefix
-- ARGV[1]  how many of the due ones to pass over     ARGV[2] most to look at
-- returns  {number looked at}

local marks = redis.call('ZRANGE', key('marks'), -1, -1, 'WITHSCORES')
local due = {}
if marks[2] then
  due = redis.call('ZRANGEBYSCORE', key('deadlines'), '-inf', marks[2], 'LIMIT', ARGV[1], ARGV[2])
end
for _, id in ipairs(due) do
  local session = find(new_work(), id)
  if session and is_open(session) then
    local ttl = ttl_of(session)
    local names = {
      key('session', id), key('timeline', id), key('calls', id), key('aliases', id), key('texts', id),
      key('seen', session.root), key('sessions', session.root),
    }
    for _, digest in ipairs(redis.call('LRANGE', key('aliases', id), 0, -1)) do
      table.insert(names, key('alias', digest))
    end
    for _, digest in ipairs(redis.call('LRANGE', key('texts', id), 0, -1)) do
      table.insert(names, key('text', digest))
    end
    for _, name in ipairs(names) do
      keep(name, ttl)
    end
  end
end
return { #due }
