-- machine.lua: reads TABLE exactly as states.advance does. The locals TABLE, TIMERS and OUTCOMES are rendered from
-- states.py and stand in front of this text, so there is one source of truth; a test holds both readers together.

local QUESTIONS = {}

function QUESTIONS.inconclusive_policy(session)
  return session.terms.inconclusive_policy
end

function QUESTIONS.window(session, at)
  return at - session.finalized <= session.terms.reversal_ms and 'open' or 'closed'
end

function QUESTIONS.on_return(session, at)
  local reverses = session.terms.on_return == 'REVERSE' and QUESTIONS.window(session, at) == 'open'
  return reverses and 'REVERSE' or 'NEW_SESSION'
end

function QUESTIONS.aftercare(session, at)
  return at - session.last <= session.terms.reversal_ms and 'open' or 'closed'
end

local function is_open(session)
  return TIMERS[session.state] ~= nil
end

local function timer_ms(state, terms)
  local term = TIMERS[state].term
  return term and terms[term] or 0
end

-- What `event` at `at` does to the session: {state, action, deadline, assumed, held}. Changes nothing.
local function advance(session, event, at)
  local cell = TABLE[session.state] and TABLE[session.state][event]
  if not cell then
    error('no move from ' .. tostring(session.state) .. ' on ' .. tostring(event), 0)
  end
  if cell.question then
    cell = cell.answers[QUESTIONS[cell.question](session, at)]
  end
  local state = cell.to or session.state
  local deadline = 0
  if cell.action == 'move' then
    deadline = math.max(at, session.last) + timer_ms(state, session.terms)
  elseif cell.action == 'restart' then
    deadline = math.max(session.deadline, at + timer_ms(state, session.terms))
  elseif TIMERS[state] then
    deadline = session.deadline
  end
  return {
    state = state,
    action = cell.action,
    deadline = deadline,
    assumed = cell.assumed or false,
    held = cell.held or false,
  }
end
