-- What work answers about the n-th of several: its error as a text, so that the others do not suffer from it.
local function answer_of(work, n)
  local done, answer = pcall(work, n)
  if done then return answer end
  return type(answer) == 'table' and answer.err or tostring(answer)
end
