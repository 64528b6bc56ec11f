// Opens a photo as topdown.photos does: upright, first frame, transparency on white, colours as they are written in the file.
// What is no photo, or too large a one, is refused with a sentence before the browser spends memory on it.
import { squeeze } from './pillow.js'

const MAX_BYTES = 30_000_000, MAX_PIXELS = 50_000_000, MAX_SIDE = 32_767
export const WORKS = 'JPEG, PNG, WebP, GIF and BMP photos work.'

export class BadPhoto extends Error {} // Its message is a sentence for the visitor

const text = (b, from, to) => String.fromCharCode(...b.subarray(from, to))
const number = (n) => n.toLocaleString('en')

// Width and height stand in the first bytes of a file; where, depends on the format. `null` if they are not there
const headers = {
  PNG: (v) => [v.getUint32(16), v.getUint32(20)],
  GIF: (v) => [v.getUint16(6, true), v.getUint16(8, true)],
  BMP: (v) => v.getUint32(14, true) === 12 ? [v.getUint16(18, true), v.getUint16(20, true)] :
    [v.getInt32(18, true), Math.abs(v.getInt32(22, true))],
  WebP: (v, b) => ({
    'VP8 ': () => [v.getUint16(26, true) & 0x3fff, v.getUint16(28, true) & 0x3fff],
    'VP8L': () => [(v.getUint32(21, true) & 0x3fff) + 1, (v.getUint32(21, true) >>> 14 & 0x3fff) + 1],
    'VP8X': () => [(v.getUint32(24, true) & 0xffffff) + 1, (v.getUint32(26, true) >>> 8) + 1],
  })[text(b, 12, 16)]?.() ?? null,
  JPEG(v, b) {
    for (const [kind, i] of segments(v, b)) {
      if (kind >= 0xc0 && kind <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(kind)) return [v.getUint16(i + 7), v.getUint16(i + 5)]
    }
    return null
  },
}

// The parts of a JPEG before the picture itself: what kind, and where
function* segments(v, b) {
  for (let i = 2; i < b.length;) {
    const kind = b[i + 1]
    if (b[i] !== 0xff || kind === 0xff || !kind) { i++; continue } // Filling between the parts
    yield [kind, i]
    if (kind === 0xda) return
    i += 2 + v.getUint16(i + 2)
  }
}

const starts = [[/^\xff\xd8\xff/, 'JPEG'], [/^\x89PNG\r\n\x1a\n/, 'PNG'], [/^GIF8[79]a/, 'GIF'],
  [/^RIFF....WEBP/s, 'WebP'], [/^BM.{12}[\x0c(48@l|]\0\0\0/s, 'BMP']]
const others = [
  [/^(\xef\xbb\xbf)?\s*(<\?xml[^]*?)?(<!--[^]*?-->\s*)?(<!DOCTYPE svg[^]*?)?<svg/i, 'an SVG drawing, not a photo'],
  [/^%PDF/, 'a PDF document'], [/^PK\x03\x04/, 'a ZIP archive or an office document'], [/^(II\*\0|MM\0\*)/, 'a TIFF picture'],
  [/^....ftyp(hei|hev|mif|msf)/s, 'a HEIC photo. Save it as JPEG first (on an iPhone: Settings, Camera, Formats, Most Compatible)'],
  [/^....ftypavi/s, 'an AVIF picture'], [/^....ftyp/s, 'a video'], [/^\s*(<!doctype html|<html)/i, 'a web page'],
]

// The format by the first bytes, whatever the name says
function format(b) {
  const start = text(b, 0, 1000)
  return starts.find(([s]) => s.test(start))?.[1] ?? { no: others.find(([s]) => s.test(start))?.[1] ?? 'not a picture' }
}

// Is the picture there to its last byte? Some browsers would draw the part that is there. Reading beyond the end throws, and counts as no
const wholes = {
  WebP: (v, b) => v.getUint32(4, true) + 8 <= b.length,
  JPEG(v, b) {
    let last, i
    for ([last, i] of segments(v, b));
    while (i < b.length && !(b[i] === 0xff && b[i + 1] === 0xd9)) i++
    return last === 0xda && i < b.length
  },
  PNG(v, b) {
    let i = 8
    while (text(b, i + 4, i + 8) !== 'IEND') i += 12 + v.getUint32(i)
    return true
  },
  GIF(v, b) { // To the end of the first frame
    const table = (flags) => flags & 0x80 ? 6 << (flags & 7) : 0
    let i = 13 + table(b[10])
    const blocks = () => { while (v.getUint8(i)) i += 1 + b[i]; i++ }
    while (v.getUint8(i) === 0x21) { i += 2; blocks() }
    i += 11 + table(v.getUint8(i + 9))
    blocks()
    return true
  },
  BMP(v, b) {
    const old = v.getUint32(14, true) === 12, [width, height] = headers.BMP(v), bits = v.getUint16(old ? 24 : 28, true)
    const packed = !old && [1, 2].includes(v.getUint32(30, true)) // Then its length cannot be told from its sides
    return packed || v.getUint32(10, true) + Math.ceil(bits * width / 32) * 4 * height <= b.length
  },
}

// How the camera was held, as a WebP file notes it (1 to 8): Pillow obeys it, most browsers do not, so the page does. The note is
// renamed, lest a browser turn the photo a second time
function orientation(v, b) {
  for (let i = 12; i + 8 < b.length; i += 8 + v.getUint32(i + 4, true) + v.getUint32(i + 4, true) % 2) {
    if (text(b, i, i + 4) !== 'EXIF') continue
    b.set([0x58, 0x58, 0x58, 0x58], i)
    const tiff = i + 8 + (text(b, i + 8, i + 12) === 'Exif' ? 6 : 0), little = text(b, tiff, tiff + 2) === 'II'
    const list = tiff + v.getUint32(tiff + 4, little)
    for (let n = v.getUint16(list, little), e = list + 2; n > 0; n--, e += 12) {
      if (v.getUint16(e, little) === 0x112) return v.getUint16(e + 8, little)
    }
  }
  return 1
}

// [a, b, c, d, e, f] of the canvas for each way of holding, with e in widths and f in heights of the upright picture
const TURNS = [[1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0], [-1, 0, 0, 1, 1, 0], [-1, 0, 0, -1, 1, 1], [1, 0, 0, -1, 0, 1], [0, 1, 1, 0, 0, 0],
  [0, 1, -1, 0, 1, 0], [0, -1, -1, 0, 1, 1], [0, -1, 1, 0, 0, 1]]

// Checks a file and has the browser decode it: {width, height, draw(context, y, scale), close()}
export async function openPhoto(blob, name = blob.name) {
  const file = name ? `“${name}”` : 'This'
  const refuse = (why) => { throw new BadPhoto(`${file} ${why} ${WORKS}`) }
  if (!blob.size) refuse('is an empty file: 0 bytes.')
  if (blob.size > MAX_BYTES) refuse(`is too large: ${number(Math.ceil(blob.size / 1e6))} MB, and the limit is ${MAX_BYTES / 1e6} MB.`)
  const b = new Uint8Array(await blob.arrayBuffer().catch(() => refuse('could not be read; it may be a folder, or have moved.')))
  const v = new DataView(b.buffer), kind = format(b)
  if (kind.no) refuse(`is ${kind.no}.`)
  const damaged = () => refuse(`is a damaged ${kind}, or its end was cut off.`)
  let sides, turn = 1
  try { sides = headers[kind](v, b) } catch { damaged() }
  if (!sides || sides[0] < 1 || sides[1] < 1) damaged()
  const size = `has ${number(sides[0])} × ${number(sides[1])} pixels`
  if (sides[0] * sides[1] > MAX_PIXELS) refuse(`${size}, and the limit is ${MAX_PIXELS / 1e6} million in all. Make it smaller first.`)
  if (Math.max(...sides) > MAX_SIDE) refuse(`${size}; a side may have ${number(MAX_SIDE)} at most. Make it smaller first.`)
  try { if (kind === 'WebP') turn = orientation(v, b) } catch { /* a damaged note is no reason to refuse the photo */ }
  let whole = false
  try { whole = wholes[kind](v, b) } catch { /* not whole */ }
  if (!whole) damaged()
  const how = { imageOrientation: 'from-image', colorSpaceConversion: 'none', premultiplyAlpha: 'none' }
  const bitmap = await createImageBitmap(new Blob([b]), how).catch(() => sides[0] * sides[1] < 12e6 ? damaged() :
    refuse(`is a damaged ${kind}, or too large for this browser’s memory (${number(sides[0])} × ${number(sides[1])} pixels).`))
  return upright(bitmap, TURNS[turn] ?? TURNS[1])
}

function upright(bitmap, [a, b, c, d, e, f]) {
  const [width, height] = a ? [bitmap.width, bitmap.height] : [bitmap.height, bitmap.width]
  function draw(context, y = 0, scale = 1) {
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.fillStyle = '#fff'
    context.fillRect(0, 0, context.canvas.width, context.canvas.height)
    context.setTransform(a * scale, b * scale, c * scale, d * scale, e * width * scale, (f * height - y) * scale)
    context.drawImage(bitmap, 0, 0)
  }
  return { width, height, draw, close: () => bitmap.close() }
}

function canvas(width, height) {
  const it = Object.assign(document.createElement('canvas'), { width, height })
  const context = it.getContext('2d', { willReadFrequently: true, colorSpace: 'srgb' })
  if (!context) throw new BadPhoto('The browser has no memory left for a picture. Close other tabs and try again.')
  return context
}

// Some browsers hand out noise in place of pixels, against tracking. Better to say so than to classify noise
function honest() {
  const context = canvas(2, 1)
  context.fillStyle = 'rgb(1,99,200)'
  context.fillRect(0, 0, 2, 1)
  return context.getImageData(0, 0, 2, 1).data.join() === '1,99,200,255,1,99,200,255'
}

// An opened photo as the square of pixels that the model gets: size × size × 3 bytes
export async function pixels({ width, height, draw }, size) {
  if (!honest()) throw new BadPhoto('This browser hides pixels from pages, against tracking. Allow “canvas” for this page, then reload it.')
  let context
  return squeeze(width, height, size, async (y, rows) => {
    if (y) await new Promise((done) => setTimeout(done)) // Let the page breathe between the strips of a large photo
    if (context?.canvas.height !== rows) context = canvas(width, rows)
    draw(context, y)
    return context.getImageData(0, 0, width, rows).data
  })
}

// A small JPEG of an opened photo as a data: address
export function thumbnail({ width, height, draw }, side) {
  const scale = Math.min(1, side / Math.max(width, height))
  const context = canvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)))
  context.imageSmoothingQuality = 'high'
  draw(context, 0, scale)
  return context.canvas.toDataURL('image/jpeg', 0.9)
}
