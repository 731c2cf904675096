// node node.mjs PACKAGE URL KEY COUNT: tracks events numbered from 0 and ends when every one was accepted.
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const [pkg, url, key, count] = process.argv.slice(2)
const users = 3

function rudder() {
  const Analytics = require('@rudderstack/rudder-sdk-node')
  // More tries than its three: they are over before five seconds are.
  const client = new Analytics(key, { dataPlaneUrl: url, flushAt: 2, flushInterval: 100, retryCount: 12, errorHandler: () => {} })
  return {
    track: (event) => new Promise((resolve, reject) => client.track(event, (error) => (error ? reject(error) : resolve()))),
    close: () => new Promise((resolve) => client.flush(resolve)),
  }
}

function segment() {
  const { Analytics } = require('@segment/analytics-node')
  const client = new Analytics({ writeKey: key, host: url, flushAt: 2, flushInterval: 100, maxRetries: 20 })
  return {
    track: (event) => new Promise((resolve, reject) => client.track(event, (error) => (error ? reject(error) : resolve()))),
    close: () => client.closeAndFlush(),
  }
}

const client = { '@rudderstack/rudder-sdk-node': rudder, '@segment/analytics-node': segment }[pkg]()
const sent = []
for (let n = 0; n < Number(count); n++) {
  sent.push(client.track({ userId: `node-${n % users}`, event: 'Sdk', properties: { n } }))
  // Spread over several requests, so that several fates are met.
  await new Promise((resolve) => setTimeout(resolve, 20))
}
await Promise.all(sent)
await client.close()
