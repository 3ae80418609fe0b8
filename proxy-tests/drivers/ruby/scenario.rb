# The Ruby driver, 2.5: it has no transactions yet. See ../README.md for the cells and the line
# protocol.

require "mongo"
require "timeout"

$stdout.sync = true
Mongo::Logger.logger.level = Logger::FATAL

# This driver gives a code in the message only.
CURSOR_NOT_FOUND = "(43)"

def suspend
  puts "SUSPEND"
  exit 1 unless $stdin.gets == "done\n"
end

def cell(name)
  result = yield
rescue StandardError, Timeout::Error => e
  result = "failed: #{e.class}: #{e.message}"
ensure
  puts "CELL #{name} #{result.gsub(/\s+/, " ")}"
end

def same(found, wanted)
  raise "#{found.inspect} instead of #{wanted.inspect}" unless found == wanted
end

def eventually
  Timeout.timeout(20) { sleep 0.05 until yield }
end

# This driver, on a Ruby of today, takes hosts as an array only.
def connect(uri, options)
  host, app_name = uri.match(%r{\Amongodb://([^/]+)/\?appName=([^&]+)}).captures
  app_name = URI.decode_www_form_component(app_name)
  Mongo::Client.new([host], options.merge(database: "scenario", app_name: app_name))
end

client = connect(ARGV[0], retry_writes: true)
plain = connect(ARGV[1], retry_writes: false, max_read_retries: 0)
things = client[:things]
many = client[:many]
puts "VERSION #{Mongo::VERSION}, Ruby #{RUBY_VERSION}"

cell("connect") do
  same client.use("admin").command(ping: 1).first["ok"], 1.0
  same things.count, 0
  "ok"
end

cell("crud") do
  things.insert_one(_id: 1, n: 1)
  same things.update_one({ _id: 1 }, { "$inc" => { n: 1 } }).modified_count, 1
  same things.find(_id: 1).first["n"], 2
  same things.delete_one(_id: 1).deleted_count, 1
  "ok"
end

cell("retryable-write") do
  things.insert_one(_id: 2)
  # A server remembers the last retryable write of each session.
  same client.use("config")[:transactions].count > 0, true
  "ok"
end

cell("bulk-write") do
  many.bulk_write((0...100).map { |n| { insert_one: { _id: n } } })
  result = many.bulk_write([
    { insert_one: { _id: 100 } },
    { update_one: { filter: { _id: 0 }, update: { "$set" => { x: 1 } } } },
  ])
  same [result.inserted_count, result.modified_count], [1, 1]
  "ok"
end

cell("batches") do
  same many.find.sort(_id: 1).batch_size(10).map { |one| one["_id"] }, (0..100).to_a
  "ok"
end

cell("w0") do
  client.with(write: { w: 0 })[:things].insert_one(_id: "w0")
  eventually { things.find(_id: "w0").first }
  "ok"
end

cell("transaction") { "has none" }

# Inserts three events, of which the stream must show each once and in order.
def watched(client, name)
  events = client[:events]
  wanted = (0...3).map { |n| "#{name} #{n}" }
  stream = events.watch.to_enum
  seen = []
  failed = nil
  watcher = Thread.new do
    seen << stream.next["documentKey"]["_id"] while seen.size < 3
  rescue StandardError => e
    failed = e
  end
  see = lambda do |count|
    eventually do
      raise failed if failed
      seen.size >= count
    end
  end
  events.insert_one(_id: wanted[0])
  see.call(1)
  yield
  wanted[1..].each { |id| events.insert_one(_id: id) }
  see.call(3)
  same seen, wanted
ensure
  watcher&.kill
end

cell("change-stream") do
  watched(client, "stream") {}
  "ok"
end

cell("idle-pool") do
  (0...5).map { Thread.new { plain[:many].find.first } }.each(&:join)
  suspend
  plain[:things].insert_one(_id: "after the nap")
  same plain[:things].count(_id: "after the nap"), 1
  suspend
  same plain[:many].count, 101
  "ok"
end

cell("open-cursor") do
  cursor = plain[:many].find.sort(_id: 1).batch_size(10).to_enum
  found = [cursor.next["_id"]]
  suspend
  begin
    loop { found << cursor.next["_id"] }
    same found, (0..100).to_a
    "completes"
  rescue Mongo::Error::OperationFailure => e
    raise unless e.message.include?(CURSOR_NOT_FOUND)
    same plain[:many].count, 101
    "CursorNotFound"
  end
end

cell("open-transaction") { "has none" }

cell("waiting-stream") do
  watched(client, "waiting") { suspend }
  "resumes"
end
exit! 0
