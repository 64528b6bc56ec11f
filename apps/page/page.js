// The page: takes a photo in, by any of five ways, and shows what the model makes of it.
//
// For tests and measurements there is `window.topdown`:
//   ready                  a promise, kept when the model is loaded
//   predict(blob)          → {class: probability}, the most probable first
//   pixels(blob)           → Uint8Array of size × size × 3: what the model gets
//   run(Uint8Array)        → Float32Array: one probability for each class, in the order of model.json
//   ms                     milliseconds from bytes to answer, of the last answer
import * as corrections from './corrections.js'
import { LoadError, get, json, load, manifest, sha256 } from './model.js'
import { BadPhoto, WORKS, openPhoto, pixels, thumbnail } from './photo.js'

const $ = (id) => document.getElementById(id)
function make(tag, set = {}, ...inside) {
  const e = Object.assign(document.createElement(tag), set)
  e.append(...inside)
  return e
}
const share = (p) => `${(100 * p).toFixed(p > 0.99 || p < 0.01 ? 1 : 0)}%`
const percent = (p) => p > 0.9995 ? 'over 99.9%' : p < 0.0005 ? 'under 0.1%' : share(p)
const megabytes = (n) => (n / 1e6).toFixed(1)
const BARS = 6 // Classes shown at once; the others unfold

// Errors: one place, one sentence

function fail(error) {
  const known = [BadPhoto, LoadError, corrections.StoreError].some((kind) => error instanceof kind)
  if (!known) console.info(error) // With the place where it happened
  $('error').textContent = known ? error.message :
    `Something happened that this page did not expect: ${error?.message ?? error}. Reload the page and try again.`
  $('status').textContent = ''
  $('error').scrollIntoView({ block: 'nearest' })
}
addEventListener('error', (e) => { e.preventDefault(); fail(e.error ?? e.message) })
addEventListener('unhandledrejection', (e) => { e.preventDefault(); fail(e.reason) })

// The model

let about, run

async function start() {
  const [texts, model] = await Promise.all([json('page.json'), manifest()])
  about = model
  introduce(texts)
  $('loading').hidden = false
  run = await load(about, (loaded, total) => {
    Object.assign($('progress'), { max: total, value: loaded })
    $('progress-text').textContent = `Loading the model (${megabytes(about.onnx.bytes)} MB) and the program that runs it: ` +
      `${megabytes(loaded)} of ${megabytes(total)} MB`
  })
}

async function predict(blob, opened = openPhoto(blob)) {
  await ready
  const began = performance.now(), photo = await opened
  try {
    const p = await run(await pixels(photo, about.size))
    hook.ms = performance.now() - began
    return Object.fromEntries(about.classes.map((c, i) => [c, p[i]]).sort((a, b) => b[1] - a[1]))
  } finally { photo.close() }
}

// One photo: in, looked at, answered. A newer photo makes an older one's answer void

let turn = 0, last = null

function clear() {
  for (const id of ['error', 'status', 'answer', 'kept-status']) $(id).textContent = ''
  for (const id of ['figure', 'details']) $(id).hidden = true
  $('wrong').open = false
  last = null
  return ++turn
}

async function look(blob, { name = blob.name, alt = 'The photo that you chose', note = '' } = {}) {
  closeCamera()
  const mine = clear()
  try {
    $('status').textContent = 'Looking …'
    const opened = await openPhoto(blob, name)
    if (mine !== turn) return opened.close()
    show(blob, alt, opened)
    if (!run) $('status').textContent = 'The model is still loading; your photo is next.'
    const answer = await predict(blob, opened)
    if (mine !== turn) return
    $('status').textContent = note
    tell(answer)
    last = { blob, answer }
  } catch (e) { if (mine === turn) { hide(); fail(e) } }
}

function show(blob, alt, { width, height }) {
  URL.revokeObjectURL($('shown').src)
  Object.assign($('shown'), { src: URL.createObjectURL(blob), alt })
  $('shown').style.setProperty('--ratio', width / height)
  $('figure').hidden = false
  document.body.classList.add('used')
}

function hide() {
  $('figure').hidden = true
  document.body.classList.remove('used')
}

function tell(answer) {
  const all = Object.entries(answer), [[first, p], [second, q]] = all
  const [start, end] = q > p / 2 ? ['Hard to say: ', `, or else ${second} (${percent(q)})`] : ['Most likely: ', '']
  $('answer').replaceChildren(start, make('strong', {}, first), ` (${percent(p)})`, end)
  const few = all.length > BARS ? BARS - 1 : BARS
  $('bars').replaceChildren(...all.slice(0, few).map(bar))
  $('rest').hidden = all.length <= few
  $('rest').open = false
  $('rest').firstChild.textContent = `${all.length - few} more classes`
  $('rest').lastChild.replaceChildren(...all.slice(few).map(bar))
  $('how-sure').textContent = `${percent(p)} says how much this looks like the photos of “${first}” that the model was trained on, ` +
    'compared with its other classes. It is no proof, and a photo of something that the model has never met gets an answer too.'
  $('correct').replaceChildren(...about.classes.filter((c) => c !== first).map((c) => make('option', {}, c)))
  $('details').hidden = false
  $('bars').scrollIntoView({ block: 'nearest' })
}

function bar([name, p]) {
  const fill = make('i')
  fill.style.width = `${100 * p}%`
  const track = make('span', { className: 'track' }, fill)
  track.setAttribute('aria-hidden', 'true')
  return make('li', {}, make('span', {}, name), make('span', { className: 'number' }, percent(p)), track)
}

// Five ways in: choose, drop, paste, example, camera

function first(transfer, none) {
  const { files } = transfer, n = files.length
  if (n) return look(files[0], { note: n > 1 ? `You gave ${n} files; this is the answer for the first.` : '' })
  clear()
  hide()
  fail(new BadPhoto(none))
}

$('drop').onclick = () => $('file').click()
for (const input of [$('file'), $('snap')]) {
  input.onchange = () => {
    if (input.files.length) first(input)
    input.value = '' // So that the same file can be chosen again
  }
}
addEventListener('dragover', (e) => { e.preventDefault(); document.body.classList.add('dragging') })
addEventListener('dragleave', (e) => { if (!e.relatedTarget) document.body.classList.remove('dragging') })
addEventListener('drop', (e) => {
  e.preventDefault()
  document.body.classList.remove('dragging')
  first(e.dataTransfer, `What you dropped is no file. Save the picture on your device first, then drop the file. ${WORKS}`)
})
addEventListener('paste', (e) => first(e.clipboardData, `The clipboard holds no picture. Copy a picture, not its address. ${WORKS}`))

async function example({ file, alt }) {
  const mine = clear()
  try {
    const blob = await (await get(file)).blob()
    if (mine === turn) await look(blob, { name: file, alt })
  } catch (e) { if (mine === turn) fail(e) }
}

// The camera, switched on by a button and off again after one shot

let camera = null
const troubles = {
  NotAllowedError: 'The camera may not be used: permission was denied. Allow it beside the page’s address, or choose a photo.',
  NotFoundError: 'No camera was found on this device. Choose a photo instead.',
  NotReadableError: 'The camera is in use by another program. Close that program and try again, or choose a photo.',
}

async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) { // Without https a page gets no camera; a phone's own camera program may hand a photo over
    if (matchMedia('(pointer: coarse)').matches) return $('snap').click()
    clear()
    return fail(new BadPhoto('The camera works only on a page with an https address, or on localhost. Choose a photo instead.'))
  }
  const mine = clear()
  hide()
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' }, audio: false })
    if (mine !== turn) return stream.getTracks().forEach((t) => t.stop())
    camera = stream
    $('video').srcObject = stream
    $('camera').hidden = false
    document.body.classList.add('filming')
    await $('video').play()
    $('shoot').focus()
  } catch (e) {
    closeCamera()
    if (mine === turn) fail(new BadPhoto(troubles[e.name] ?? `The camera does not start: ${e.message}. Choose a photo instead.`))
  }
}

function closeCamera() {
  camera?.getTracks().forEach((t) => t.stop())
  camera = $('video').srcObject = null
  $('camera').hidden = true
  document.body.classList.remove('filming')
}

async function shoot() {
  const { videoWidth: width, videoHeight: height } = $('video')
  if (!width) return fail(new BadPhoto('The camera shows nothing yet. Wait a moment and try again.'))
  const canvas = make('canvas', { width, height })
  canvas.getContext('2d').drawImage($('video'), 0, 0)
  const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'))
  $('use-camera').focus()
  await look(blob, { name: 'the photo from your camera', alt: 'The photo that you took' })
}

$('use-camera').onclick = () => camera ? closeCamera() : openCamera()
$('shoot').onclick = shoot
$('stop').onclick = () => { closeCamera(); $('use-camera').focus() }
addEventListener('pagehide', closeCamera)

// Corrections, only if the visitor asks for them

function recount(said = '') {
  const n = corrections.count()
  $('kept').hidden = !n
  $('kept-count').textContent = `${n} ${n === 1 ? 'correction is' : 'corrections are'} kept on this device.`
  $('kept-status').textContent = said
}

const trying = (use) => async () => { try { $('error').textContent = ''; await use() } catch (e) { fail(e) } }

$('remember').onchange = trying(() => {
  $('correcting').disabled = !$('remember').checked
  corrections.ask($('remember').checked)
})

$('keep').onclick = trying(async () => {
  const { blob, answer: all } = last, [[answer, probability]] = Object.entries(all), correct = $('correct').value
  const opened = await openPhoto(blob), photo = thumbnail(opened, 384), hash = await sha256(await blob.arrayBuffer())
  opened.close()
  corrections.keep({ time: new Date().toISOString(), photo, sha256: hash, answer, probability, correct })
  recount(`Kept: ${answer}, corrected to ${correct}.`)
})

$('download').onclick = trying(() => {
  const href = URL.createObjectURL(new Blob([corrections.file()], { type: 'application/json' }))
  make('a', { href, download: 'corrections.json' }).click()
  setTimeout(() => URL.revokeObjectURL(href), 60_000)
})

$('forget').onclick = trying(() => {
  corrections.forget()
  recount('Forgotten.')
  $('drop').focus()
})

// What stands on the page

function introduce({ title, intro, examples = [] }) {
  document.title = $('title').textContent = title || document.title
  $('intro').textContent = intro || ''
  $('examples').replaceChildren(...examples.map((e) => {
    const picture = make('img', { src: e.file, alt: e.alt || e.label || 'Example', loading: 'lazy' })
    return make('button', { type: 'button', onclick: () => example(e) }, picture)
  }))
  document.querySelector('.examples').hidden = !examples.length
  const rows = Object.entries(facts(about))
  $('about').replaceChildren(...rows.map(([name, value]) => make('div', {}, make('dt', {}, name), make('dd', {}, value))))
}

function facts({ name, architecture, classes, size, data = {}, metrics: { error_rate: wrong, baseline, n_valid: n } = {}, onnx }) {
  const unknown = 'not recorded', link = (s) => /^https:\/\//.test(s) ? make('a', { href: s, rel: 'noopener' }, s) : s || unknown
  const trained = [data.name, data.n && `${data.n.toLocaleString('en')} pictures`, data.track === 'sample' && 'drawn by a program']
  const measured = `${percent(wrong)} of ${n?.toLocaleString('en') ?? 'the'} photos that it had not seen`
  const rule = baseline == null ? '' : `; always giving the commonest answer, without a model: ${percent(baseline)}`
  return {
    'Knows': classes.slice(0, 12).join(', ') + (classes.length > 12 ? ` … ${classes.length} classes in all` : ''),
    'Trained on': trained.filter(Boolean).join(', ') || unknown,
    'Origin': link(data.citation || data.source),
    'Licence of the data': link(data.licence),
    'Measured error': wrong == null ? unknown : measured + rule,
    'Limits': 'It knows only these classes and answers with one of them, whatever the photo shows. Photos unlike those of its training ' +
      '(drawings, dark or blurred photos, unusual angles) are answered worse than the measured error says. Decide nothing of weight by it.',
    'Your photos': 'They are read by your browser, on your device, and never leave it. The page needs its server only to load itself.',
    'Model': `${[...new Set([name, architecture])].filter(Boolean).join(', ')}; sees each photo as ${size} × ${size} pixels; ` +
      `${megabytes(onnx.bytes)} MB; SHA-256 ${onnx.sha256.slice(0, 12)} …`,
  }
}

const ready = start()
const hook = window.topdown = {
  predict, ready, ms: null,
  pixels: async (blob) => { await ready; return pixels(await openPhoto(blob), about.size) },
  run: async (photo) => { await ready; return run(photo) },
}

$('asleep').remove()
ready.catch(fail).finally(() => { $('loading').hidden = true })
try {
  $('remember').checked = corrections.asked()
  $('correcting').disabled = !$('remember').checked
  recount()
} catch { /* Without a store nothing is kept; the visitor hears of it on asking for it */ }
