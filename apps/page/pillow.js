// A smaller (or larger) picture, computed exactly as Pillow's Image.resize((size, size), BILINEAR) computes it.
// A browser's own drawing would give other pixels, and so other answers.
//
// How it is done: each new pixel is a weighted mean of the old ones around its middle. The weights fall in a straight line from
// the middle to the edge ("bilinear", a tent); when a picture shrinks, the tent is widened so that no old pixel is left out.
// First along each row, then along each column; in between, the numbers are rounded to whole ones from 0 to 255.
// The weights are whole numbers too, with 22 bits after the point, so that every machine gets the same.

const BITS = 22
const HALF = 1 << (BITS - 1)
const AT_ONCE = 4_000_000 // Pixels that are in memory at one time

// For each of `to` new pixels: the first old one that counts, how many count, and their weights (`most` places for each)
export function weights(from, to) {
  const scale = from / to
  const reach = Math.max(scale, 1)
  const most = Math.ceil(reach) * 2 + 1
  const first = new Int32Array(to), count = new Int32Array(to), w = new Int32Array(to * most)
  for (let i = 0; i < to; i++) {
    const middle = (i + 0.5) * scale
    const a = Math.max(Math.trunc(middle - reach + 0.5), 0)
    const n = Math.min(Math.trunc(middle + reach + 0.5), from) - a
    const tent = Array.from({ length: n }, (_, j) => Math.max(1 - Math.abs((j + a - middle + 0.5) * (1 / reach)), 0))
    const sum = tent.reduce((s, t) => s + t, 0)
    tent.forEach((t, j) => { w[i * most + j] = Math.trunc(0.5 + (sum ? t / sum : t) * (1 << BITS)) })
    first[i] = a
    count[i] = n
  }
  return { most, first, count, w }
}

// `rows` rows of RGBA become rows of RGB, `size` pixels long, in `to` from row `y` on
function alongRows(rgba, width, rows, size, { most, first, count, w }, to, y) {
  let o = y * size * 3
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < size; i++) {
      let r = HALF, g = HALF, b = HALF
      let p = (row * width + first[i]) * 4
      for (let j = i * most, end = j + count[i]; j < end; j++, p += 4) {
        r += rgba[p] * w[j]; g += rgba[p + 1] * w[j]; b += rgba[p + 2] * w[j]
      }
      to[o++] = r >> BITS; to[o++] = g >> BITS; to[o++] = b >> BITS
    }
  }
}

// Rows of RGB, `size` pixels long, become `size` rows
function alongColumns(rgb, size, { most, first, count, w }) {
  const line = size * 3, out = new Uint8ClampedArray(size * line)
  for (let i = 0; i < size; i++) {
    for (let x = 0; x < line; x++) {
      let s = HALF, p = first[i] * line + x
      for (let j = i * most, end = j + count[i]; j < end; j++, p += line) s += rgb[p] * w[j]
      out[i * line + x] = s >> BITS
    }
  }
  return out
}

// A picture of width × height pixels as a square: size × size × 3 bytes (red, green, blue).
// `strip(y, rows)` gives so many rows of the picture as RGBA bytes; a large picture never lies in memory as a whole.
export async function squeeze(width, height, size, strip) {
  const middle = new Uint8ClampedArray(height * size * 3)
  const across = weights(width, size)
  const step = Math.max(1, Math.floor(AT_ONCE / width))
  for (let y = 0; y < height; y += step) {
    const rows = Math.min(step, height - y)
    alongRows(await strip(y, rows), width, rows, size, across, middle, y)
  }
  return new Uint8Array(alongColumns(middle, size, weights(height, size)).buffer)
}
