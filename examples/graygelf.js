// A GELF server of a few lines receives Tetragon's events from tetracast, in the
// format gelf, as Graylog does:
//
//     npm install graygelf
//     node graygelf.js
//     tetracast export --udp-destination graylog://HOST
//
// It writes each message as a line of JSON.
const fs = require('fs')
const server = require('graygelf/server')()
const out = fs.openSync('/var/log/tetragon/events.jsonl', 'a')

server.on('message', (message) => fs.writeSync(out, JSON.stringify(message) + '\n'))
server.on('error', (err) => console.error(err))
server.listen(12201)
