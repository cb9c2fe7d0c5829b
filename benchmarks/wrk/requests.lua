-- Sends the request on standard input again and again. Each "@" in it becomes a number that no other request has: RUN,
-- six digits, then the number of the request, ten digits. Prints what became of all.
-- Usage: wrk --threads 1 --script benchmarks/wrk/requests.lua URL -- RUN <REQUEST

local pieces, run, sent = {}, 0, 0

function init(args)
   run = tonumber(args[1])
   for piece in (io.read("*a") .. "@"):gmatch("([^@]*)@") do
      pieces[#pieces + 1] = piece
   end
end

function request()
   sent = sent + 1
   return table.concat(pieces, string.format("%06d%010d", run, sent))
end

function done(summary)
   local errors = summary.errors
   local broken = errors.connect + errors.read + errors.write + errors.timeout
   print(string.format("%d answered in %d us, %d refused, %d broken", summary.requests, summary.duration, errors.status, broken))
end
