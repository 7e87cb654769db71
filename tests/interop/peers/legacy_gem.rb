# Ruby's gem websocket, a client: hixie-75, hixie-76, hybi-03, -07, -08.
require "socket"
gem "websocket"
require "websocket"

role, url, version, scenario = ARGV
if role == "version"
  puts Gem.loaded_specs["websocket"].version
  exit
end

$stdout.sync = true
port = url[/:(\d+)/, 1].to_i
number = version[/\d+/].to_i
socket = handshake = nil
# It strips white space off the MD5 that it expects, so one handshake in some fails by its own fault.
20.times do
  socket = TCPSocket.new("127.0.0.1", port)
  handshake = WebSocket::Handshake::Client.new(url: url, version: number, origin: "http://127.0.0.1:#{port}")
  socket.write(handshake.to_s)
  handshake << socket.readpartial(65536) until handshake.finished? || !IO.select([socket], nil, nil, 1)
  break if handshake.valid?
  socket.close
end
raise "no handshake: #{handshake.error}" unless handshake.valid?

say = lambda do |type, data = nil|
  # In hixie it joins what is sent with octets, which Ruby does only for octets.
  fields = { version: handshake.version, type: type, data: data&.b }.compact
  socket.write(WebSocket::Frame::Outgoing::Client.new(fields).to_s)
end
frames = WebSocket::Frame::Incoming::Client.new(version: handshake.version)
# In hixie-76 its leftovers are the proof.
frames << handshake.leftovers if handshake.leftovers && ![76, 3].include?(number)
echoes = ["hello", "é" * 200]
closed = false
told = "eof"
close = lambda do
  next if closed
  closed = true
  number == 75 ? socket.close_write : say.(:close)
end
scenario == "client-closes" ? say.(:text, echoes[0]) : say.(:text, scenario)
begin
  loop do
    while (frame = frames.next)
      if frame.type == :close
        told = "close"
        close.call
      elsif frame.type == :text
        raise "the echo differs" if frame.to_s.force_encoding("UTF-8") != echoes.shift
        echoes.empty? ? close.call : say.(:text, echoes[0])
      end
    end
    frames << socket.readpartial(65536)
  end
rescue EOFError
rescue Errno::ECONNRESET
  told = "reset"
end
puts told
