// What a visitor corrects, kept in this browser's own store if the visitor asks for it, and nowhere else.
// One entry each, so that two open tabs do not overwrite each other; named by the page's folder, which shares its host with others.
const FOLDER = `topdown ${new URL('.', location).pathname} `
const ASKED = `${FOLDER}remember`

export class StoreError extends Error {} // Its message is a sentence for the visitor

function store(use) {
  try { return use(localStorage) } catch (e) {
    throw new StoreError(e.name === 'QuotaExceededError' ?
      'The browser has no room left for corrections. Download them, then forget them, and go on.' :
      'This browser keeps nothing for this page (private window, or storage is switched off), so corrections cannot be remembered.')
  }
}

const keys = () => store((s) => Object.keys(s).filter((k) => k.startsWith(`${FOLDER}correction `)))
export const count = () => keys().length
export const asked = () => store((s) => s.getItem(ASKED) === 'yes')
export const ask = (yes) => store((s) => yes ? s.setItem(ASKED, 'yes') : s.removeItem(ASKED))
export const forget = () => keys().forEach((k) => store((s) => s.removeItem(k)))

// A second correction of the same photo takes the place of the first. {time, photo, sha256, answer, probability, correct};
// `sha256` is null on a host without https
export const keep = (c) => store((s) => s.setItem(`${FOLDER}correction ${c.sha256 ?? c.time}`, JSON.stringify(c)))

// All of them as the text of corrections.json
export function file() {
  const corrections = keys().map((k) => JSON.parse(localStorage.getItem(k))).sort((a, b) => a.time < b.time ? -1 : 1)
  return JSON.stringify({ format: 'topdown-corrections', format_version: 1, corrections }, null, 1)
}
