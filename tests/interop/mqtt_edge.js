// mqtt.js at the door of a hostname: publishes to itself in every quality and prints "done", or what refused it.
//
// mqtt_edge.js URL VERSION CA CLIENT_ID TOPIC [CERTIFICATE KEY]: the name in the URL is looked up as loopback.
'use strict'

const fs = require('fs')
const mqtt = require('mqtt')

const [url, version, ca, clientId, topic, certificate, key] = process.argv.slice(2)
const loopback = (name, options, done) =>
  options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)
const options = {
  protocolVersion: Number(version),
  clientId,
  reconnectPeriod: 0,
  connectTimeout: 10000,
  ca: fs.readFileSync(ca),
  lookup: loopback,
  wsOptions: { lookup: loopback }
}
if (certificate) {
  options.cert = fs.readFileSync(certificate)
  options.key = fs.readFileSync(key)
}

function end (text) {
  console.log(text)
  process.exit(0)
}

const received = []
const client = mqtt.connect(url, options)
setTimeout(() => end(`overdue after ${JSON.stringify(received)}`), 20000)
client.on('error', error => end(`refused: ${error.message}`))
client.on('close', () => end('refused: closed'))
client.on('message', (name, payload, packet) => {
  const properties = packet.properties && packet.properties.userProperties
  received.push([name, payload.toString(), packet.qos, properties ? properties.a : undefined])
  if (received.length < 3) return
  received.sort()
  for (const [index, [name, payload, qos, property]] of received.entries()) {
    const expected = [topic, `hello ${index}`, index, version === '5' ? '1' : undefined]
    if (JSON.stringify([name, payload, qos, property]) !== JSON.stringify(expected)) {
      end(`wrong: ${JSON.stringify(received)}`)
    }
  }
  client.removeAllListeners('close')
  client.end(false, () => end('done'))
})
client.on('connect', () => {
  client.subscribe(topic, { qos: 2 }, (error, granted) => {
    const isRefused = error || granted.some(grant => grant.qos > 2)
    for (const qos of [0, 1, 2]) {
      const publish = { qos, properties: version === '5' ? { userProperties: { a: '1' } } : undefined }
      client.publish(topic, `hello ${qos}`, publish, error => {
        if (error && isRefused) end(`refused: subscription and publication, ${error.message}`)
        if (error) end(`refused: ${error.message}`)
      })
    }
    if (isRefused) {
      client.removeAllListeners('close')
      client.on('close', () => end('refused: subscription and publication, closed'))
    }
  })
})
