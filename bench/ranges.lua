-- For wrk: random aligned ranges over several blobs, or whole blobs.
-- Arguments: bytes of a range (0: whole blobs), a seed, then path=size or URL=size for every blob. A URL asks a forward proxy.
-- The requests are made beforehand, so that choosing one costs next to nothing while wrk measures.

local COUNT = 4096
local requests = {}
local nextRequest = 0

function init(args)
  local length = tonumber(args[1])
  math.randomseed(tonumber(args[2]))
  local blobs = {}
  for i = 3, #args do
    local path, size = args[i]:match("^(.*)=(%d+)$")
    blobs[#blobs + 1] = { path = path, size = tonumber(size) }
  end
  for i = 1, COUNT do
    local blob = blobs[math.random(#blobs)]
    local headers = {}
    headers["Host"] = blob.path:match("^https?://([^/]+)")
    if length > 0 then
      local start = math.random(0, math.floor(blob.size / length) - 1) * length
      headers["Range"] = string.format("bytes=%.0f-%.0f", start, start + length - 1)
    end
    requests[i] = wrk.format("GET", blob.path, headers)
  end
end

function request()
  nextRequest = nextRequest % COUNT + 1
  return requests[nextRequest]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%.0f,"bytes":%.0f,"micros":%.0f,"p50":%.0f,"p99":%.0f,"failed":%.0f}\n',
    summary.requests, summary.bytes, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
