-- Health of an RFTJob for Argo CD, by its conditions. A job whose training runs is Healthy, as its spec asks for.
-- With wait_for_end = true only a job that has ended well is: then a sync wave goes on after the training.
local wait_for_end = false
local hs = {status = "Progressing", message = "The operator has not looked at this RFTJob yet."}
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return hs
end
local is = {}
for _, condition in ipairs(status.conditions) do
  is[condition.type] = condition.status == "True"
  if condition.type == "Ready" then
    hs.message = condition.reason .. ": " .. (condition.message or "")
  end
end
if is.Failed or is.Stalled then
  hs.status = "Degraded"
elseif is.Suspended or is.Cancelled then
  hs.status = "Suspended"
elseif is.Complete or (is.Ready and not wait_for_end) then
  hs.status = "Healthy"
end
return hs
