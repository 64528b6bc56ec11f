// Loads the model and the program that runs it (ONNX Runtime, compiled to WebAssembly), all from this page's own folder.
const RUNTIME = 'ort/ort.wasm.bundle.min.mjs', WASM = 'ort/ort-wasm-simd-threaded.wasm'
export const WASM_BYTES = 14_239_897 // Of onnxruntime-web 1.30.0; only the progress bar needs to know
const AGAIN = 'Build the folder again with `topdown app build`, and copy all of it to the host.'

export class LoadError extends Error {} // Its message is a sentence for the visitor

const address = (name) => new URL(name, import.meta.url)

// A file of this page's folder as a Response, or a sentence that says which one is missing
export async function get(name) {
  let r
  try { r = await fetch(address(name)) } catch {
    throw new LoadError(`${name} could not be fetched. Look whether you are online and the server still runs, then reload the page.`)
  }
  if (r.ok) return r
  const missing = r.status === 404 ? 'is missing on the server' : `was refused by the server (status ${r.status})`
  throw new LoadError(`${name} ${missing}. ${AGAIN}`)
}

export async function json(name) {
  const r = await get(name)
  try { return await r.json() } catch { throw new LoadError(`${name} is not valid JSON. ${AGAIN}`) }
}

// A file's bytes; `report` hears how many have come so far
async function bytes(name, report) {
  const reader = (await get(name)).body.getReader(), parts = []
  let size = 0
  try {
    for (let part; !(part = await reader.read()).done; report(size)) { parts.push(part.value); size += part.value.length }
  } catch { throw new LoadError(`${name} broke off after ${(size / 1e6).toFixed(1)} MB. Reload the page to fetch it again.`) }
  const all = new Uint8Array(size)
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0)
  return all
}

// The SHA-256 of some bytes, or null where the browser keeps it for https and localhost
export async function sha256(data) {
  if (!globalThis.crypto?.subtle) return null
  return [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))].map((b) => b.toString(16).padStart(2, '0')).join('')
}

async function checked(about, report) {
  const data = await bytes('model.onnx', report), wanted = about.onnx, found = await sha256(data)
  if (data.length === wanted.bytes && (found ?? wanted.sha256) === wanted.sha256) return data
  const how = data.length === wanted.bytes ? 'its SHA-256 differs' : `${data.length} bytes instead of ${wanted.bytes}`
  throw new LoadError(`model.onnx is not the file that model.json describes (${how}), so it is not used. ${AGAIN}`)
}

export async function manifest() {
  const about = await json('model.json')
  const known = about?.format === 'topdown-photo-model' && about.format_version === 1
  if (known && about.classes?.length > 1 && about.size > 0 && about.onnx?.sha256) return about
  throw new LoadError(`model.json does not describe a model that this page can run. ${AGAIN}`)
}

// A function from size × size × 3 bytes to one probability for each class. `report(loaded, total)` in bytes
export async function load(about, report) {
  const done = [0, 0], heard = (i) => (n) => { done[i] = n; report(done[0] + done[1], WASM_BYTES + about.onnx.bytes) }
  const script = get(RUNTIME).then(() => import(address(RUNTIME))).catch((e) => { throw e instanceof LoadError ? e :
    new LoadError(`${RUNTIME} does not start: ${e.message}. A server must send it as text/javascript.`) })
  const [ort, wasm, model] = await Promise.all([script, bytes(WASM, heard(0)), checked(about, heard(1))])
  Object.assign(ort.env.wasm, { numThreads: 1, proxy: false, wasmBinary: wasm.buffer }) // More threads need special headers of the host
  let session
  try { session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'], logSeverityLevel: 3 }) } catch (e) {
    throw new LoadError(`The model cannot be run in this browser: ${e.message ?? e}. Try a current Firefox, Chrome, Edge or Safari.`)
  }
  let last = Promise.resolve()
  async function one(photo) {
    const input = new ort.Tensor('uint8', photo, [1, about.size, about.size, 3])
    return (await session.run({ photo: input })).probabilities.data
  }
  return (photo) => (last = last.catch(() => {}).then(() => one(photo))) // One photo after another
}
