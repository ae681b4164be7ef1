-- stitch.lua: which session an observation belongs to. Nothing here writes to Redis; see work.lua.
--
-- An id leads to one session (alias:<digest>); one that several answers made (made.lua), and a text (texts.lua), to several.

-- The session that the exchange belongs to, how it was found, and whether nothing that another replica has yet to say
-- could change that.
local function locate(work, o)
  local trace, handed_on
  for i, k in ipairs(o.keys) do
    if k.kind == 'trace' then
      trace = k
    elseif is_made_up(k) then
      handed_on = true
      local session = giver(work, o, k)
      if session then
        return session, k.kind, is_sure(work, o, session)
      end
    else
      local session = session_of_alias(work, k.digest)
      if session and may_join(o, session, k.kind, i) then
        if k.kind == 'conversation' then
          session = siblings(work, session.root)[1] or session
        end
        return session, k.kind, true
      end
    end
  end
  if o.touch then
    return nil, nil, true
  end
  local session, how, certain = locate_by_text(work, o)
  if session and certain then
    return session, how, true
  end
  -- Something came before it that is not known (yet).
  certain = o.conversation ~= nil or not (handed_on or (o.thread and (o.thread.follows or o.thread.again)))
  if session then
    return session, how, certain
  end
  session = trace and session_of_alias(work, trace.digest)
  if session and may_be(o, session) then
    if (session.trace_joins or 0) < LIMITS.trace_joins then
      session.trace_joins = (session.trace_joins or 0) + 1
      return session, 'trace', certain
    end
    count(work, 'trace_joins_over')
  end
  -- Somebody has come before it with what it made: this replica was behind.
  for _, k in ipairs(o.made) do
    session = taker(work, o, k)
    if session then
      return session, k.kind, true
    end
  end
  session = wanted(work, o)
  if session then
    return session, 'text', true
  end
  return nil, nil, certain
end
