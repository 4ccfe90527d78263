-- One request after another, each with the next token of a file; prints one line of JSON at the end.
-- Arguments: file, number of the first token (from 0), number of tokens, "once" (stop when used up) or "again".

local ffi = require("ffi")
ffi.cdef [[
typedef struct { long s; long us; } bench_timeval;
int gettimeofday(bench_timeval *now, void *zone);
]]

local function now_us()
  local at = ffi.new("bench_timeval")
  ffi.C.gettimeofday(at, nil)
  return tonumber(at.s) * 1e6 + tonumber(at.us)
end

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local first, count = tonumber(args[2]), tonumber(args[3])
  once, sent, requests, ended_us = args[4] == "once", 0, {}, 0
  local number = 0
  for token in io.lines(args[1]) do
    if number >= first + count then break end
    if number >= first then
      requests[#requests + 1] = wrk.format("GET", nil, {
        ["Authorization"] = "Bearer " .. token,
        ["User-Agent"] = "shop/4.2.0",
        ["Accept"] = "application/json",
      })
    end
    number = number + 1
  end
  started_us = now_us()
end

function request()
  local turn = sent % #requests
  sent = sent + 1
  if once and sent >= #requests and ended_us == 0 then
    ended_us = now_us()
    wrk.thread:stop()
  end
  return requests[turn + 1]
end

function done(summary, latency, _)
  local duration_us = summary.duration
  local ended = threads[1]:get("ended_us")
  if ended > 0 then duration_us = ended - threads[1]:get("started_us") end
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "bad": %d, "broken": %d}\n',
    summary.requests, duration_us, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
