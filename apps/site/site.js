// Light and dark, and search. Without this file everything can still be read.
const root = document.documentElement
const remember = { get: () => { try { return localStorage.getItem('theme') } catch { return null } },
                   set: value => { try { localStorage.setItem('theme', value) } catch { /* private window */ } } }
if (remember.get()) root.dataset.theme = remember.get()

const theme = document.querySelector('#page-theme')
theme.hidden = false
theme.addEventListener('click', () => {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
  root.dataset.theme = dark ? 'light' : 'dark'
  remember.set(root.dataset.theme)
})

// The index is a list of [address, title, text]. It is loaded when somebody begins to search, as a script, so that it also works from a file.
const base = document.currentScript.src.replace(/site\.js$/, '')
const form = document.querySelector('form[role=search]')
const field = form.querySelector('input')
const list = document.querySelector('#found')
form.hidden = false

let loading
function index() {
  loading ??= new Promise((done, failed) => {
    const script = document.createElement('script')
    script.src = base + 'search.js'
    script.onload = () => done(window.searchIndex)
    script.onerror = failed
    document.head.append(script)
  })
  return loading
}

// Every word must occur; a word in the title counts more, a whole word more than a part of one.
function score(words, [, title, text]) {
  const [head, body] = [title.toLowerCase(), text.toLowerCase()]
  let sum = 0
  for (const word of words) {
    const whole = new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?![\\p{L}\\p{N}])`, 'gu')
    const points = 20*head.includes(word) + 20*whole.test(head) + Math.min(body.split(word).length - 1, 5) + Math.min((body.match(whole) ?? []).length, 5)
    if (!points) return 0
    sum += points
  }
  return sum
}

function snippet(text, word) {
  const at = Math.max(text.toLowerCase().indexOf(word) - 40, 0)
  return (at ? '…' : '') + text.slice(at, at + 120) + (text.length > at + 120 ? '…' : '')
}

async function search() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean)
  if (!words.length) { list.replaceChildren(); return }
  const all = await index()
  const best = all.map(entry => [score(words, entry), entry]).filter(o => o[0]).sort((a, b) => b[0] - a[0]).slice(0, 12)
  const items = best.map(([, [address, title, text]]) => {
    const item = document.createElement('li'), link = document.createElement('a'), more = document.createElement('p')
    link.href = base + address
    link.textContent = title
    more.textContent = snippet(text, words[0])
    item.append(link, more)
    return item
  })
  const found = document.createElement(items.length ? 'ul' : 'p')
  if (items.length) found.append(...items)
  else found.textContent = 'Nothing found.'
  list.replaceChildren(found)
}

field.addEventListener('focus', index)
field.addEventListener('input', search)
form.addEventListener('submit', event => { event.preventDefault(); list.querySelector('a')?.click() })
document.addEventListener('keydown', event => {
  if (event.key === 'Escape') { field.value = ''; search() }
  if (event.key === '/' && document.activeElement.tagName !== 'INPUT') { event.preventDefault(); field.focus() }
})
