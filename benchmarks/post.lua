-- wrk ... -s benchmarks/post.lua URL -- BODIES
-- Posts the lines of the file BODIES in turn; prints what wrk counted as JSON, latencies in milliseconds.

local prepared, at = {}, 0

function init(arguments)
  for body in io.lines(arguments[1]) do
    prepared[#prepared + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
  end
end

function request()
  at = at % #prepared + 1
  return prepared[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p95": %f, "p99": %f, "slowest": %f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3
  ))
end
