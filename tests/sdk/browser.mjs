// node browser.mjs CLIENT URL KEY COUNT: a page in Chromium, on another origin than URL, makes calls numbered from 0; ends when every
// one was accepted. With beacons, of which a page learns nothing, it ends on SIGTERM.
import { createServer } from 'node:http'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'

const [client, url, key, countText] = process.argv.slice(2)
const count = Number(countText)
const packages = fileURLToPath(new URL('node_modules', import.meta.url))

// What runs in the page, before the calls. Each sets `calls`, one function a kind of call, which takes the call's number.
const rudder = (options) => `
  import { RudderAnalytics } from '/@rudderstack/analytics-js/dist/npm/modern/bundled/esm/index.mjs'
  const analytics = new RudderAnalytics()
  analytics.load(${JSON.stringify(key)}, ${JSON.stringify(url)}, {
    configUrl: ${JSON.stringify(url)}, logLevel: 'ERROR', ...${JSON.stringify(options)},
  })
  window.calls = [
    (n) => analytics.page('docs', 'Page', { n }, { n }),
    (n) => analytics.track('Sdk', { n }, { n }),
    (n) => analytics.identify('browser-1', { plan: 'free' }, { n }),
    (n) => analytics.group('group-1', { size: 3 }, { n }),
    (n) => analytics.alias('browser-1', 'before', { n }),
  ]
  await new Promise((resolve) => analytics.ready(resolve))`
// Retries at most a second apart: by itself the client soon waits for minutes.
const queueOptions = { minRetryDelay: 200, maxRetryDelay: 1000, maxAttempts: 30 }
const segment = (integration) => `
  await new Promise((resolve, reject) => {
    const script = document.createElement('script')
    Object.assign(script, { src: '/@segment/analytics-next/dist/umd/index.js', onload: resolve, onerror: reject })
    document.head.append(script)
  })
  const [analytics] = await window.AnalyticsNext.AnalyticsBrowser.load(
    { writeKey: ${JSON.stringify(key)}, cdnURL: ${JSON.stringify(url)} },
    { integrations: { 'Segment.io': ${JSON.stringify(integration)} } },
  )
  const options = (n) => ({ context: { n } })
  window.calls = [
    (n) => analytics.page('docs', 'Page', { n }, options(n)),
    (n) => analytics.track('Sdk', { n }, options(n)),
    (n) => analytics.identify('browser-1', { plan: 'free' }, options(n)),
    (n) => analytics.group('group-1', { size: 3 }, options(n)),
    (n) => analytics.alias('browser-1', 'before', options(n)),
  ]`
const scripts = {
  rudder: rudder({ queueOptions }),
  'rudder-batch': rudder({ queueOptions: { ...queueOptions, batch: { enabled: true, maxItems: 3, flushInterval: 200 } } }),
  // The last ones are sent when the page is left.
  'rudder-beacon': rudder({ useBeacon: true, beaconQueueOptions: { maxItems: 7, flushQueueInterval: 600_000 } }),
  segment: segment({}),
  'segment-batch': segment({ deliveryStrategy: { strategy: 'batching', config: { size: 3, timeout: 200 } } }),
}

const types = { '.js': 'text/javascript', '.mjs': 'text/javascript' }
const site = createServer(async (request, response) => {
  const path = normalize(new URL(request.url, 'http://page').pathname)
  if (path === '/') {
    response.setHeader('content-type', 'text/html')
    response.end('<!doctype html><title>Shop</title><link rel="icon" href="data:,"><h1>Shop</h1>')
    return
  }
  try {
    const file = await readFile(join(packages, path))
    response.setHeader('content-type', types[extname(path)] ?? 'application/octet-stream')
    response.end(file)
  } catch {
    response.writeHead(404).end()
  }
})
await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve))

const terminated = new Promise((resolve) => process.once('SIGTERM', resolve))
const profile = await mkdtemp(join(tmpdir(), 'sluice-chromium-'))
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM,
  handleSIGTERM: false,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-proxy-server',
  ],
})
try {
  const page = await browser.newPage()
  page.on('console', (message) => console.log(`console ${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => console.log(`page error: ${error}`))

  // The numbers of the calls that were answered with 200, told from the requests themselves.
  const accepted = new Set()
  let allAccepted
  const done = new Promise((resolve) => (allAccepted = resolve))
  page.on('response', (response) => {
    const request = response.request()
    if (request.method() !== 'POST' || response.status() !== 200) return
    // Playwright does not see what a beacon carries.
    const body = JSON.parse(request.postData() ?? '{"batch":[]}')
    for (const event of body.batch ?? [body]) accepted.add(event.context.n)
    if (accepted.size === count) allAccepted()
  })

  await page.goto(`http://127.0.0.1:${site.address().port}/`)
  await page.addScriptTag({ type: 'module', content: `${scripts[client]}\nwindow.started = true` })
  await page.waitForFunction(() => window.started)
  for (let n = 0; n < count; n++) {
    await page.evaluate((n) => void window.calls[n % window.calls.length](n), n)
    // Spread over several requests, so that several fates are met.
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  if (client === 'rudder-beacon') {
    await page.goto('about:blank')
    await terminated
  } else {
    await done
  }
} finally {
  await browser.close()
  site.close()
  await rm(profile, { recursive: true, force: true })
}
