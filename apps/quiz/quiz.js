// The questions of a lesson: judge an answer, say why, keep it in this browser. Without this file everything can still be read.
// What is judged here, and how, follows topdown.quiz.judge; tests/test_quizfaces.py compares the two.
const page = document.querySelector('.questions')
const forms = [...page.querySelectorAll('form.try')]

// What was answered, in this browser: a list of {question, right, share, when, face}, the form that `topdown progress import` reads.
const KEY = 'topdown-answers'
let memory = []                    // where the browser keeps nothing: a private window, say
function answers() {
  try { const kept = JSON.parse(localStorage.getItem(KEY) ?? '[]'); return Array.isArray(kept) ? kept : memory } catch { return memory }
}
function keep(list) {
  memory = list
  try { localStorage.setItem(KEY, JSON.stringify(list)); return '' } catch { return 'This browser keeps no answers: export them before you close the page.' }
}

// ---- judging

const lines = text => text.replaceAll('\r\n', '\n').trimEnd().split('\n').map(o => o.trimEnd())
const near = (x, answer, tolerance) => Math.abs(x - answer) <= tolerance + 1e-12*Math.abs(answer)
const NUMBER = /^[=≈~ ]*([-+]?\s*[\d.,_' ]*\d[.,]?(?:e[-+]?\d+)?)(?:\s*\/\s*(\d[\d.]*))?\s*([^]*)$/i

// All numbers that one may mean by writing this: 1,234 is twelve hundred for some and one and a quarter for others.
function readings(digits) {
  const [body, power] = digits.toLowerCase().replace(/[\s_']/g, '').split('e')
  const tail = power ? 'e' + power : '', marks = body.match(/[.,]/g) ?? []
  if (new Set(marks).size === 2) {
    const last = marks.at(-1), at = body.lastIndexOf(last)
    return marks.filter(o => o === last).length === 1 ? [body.slice(0, at).replace(/[.,]/g, '') + '.' + body.slice(at + 1) + tail] : []
  }
  const both = marks.length < 2 ? [body.replace(',', '.')] : []
  if (/^[-+]?[1-9]\d{0,2}([.,]\d{3})+$/.test(body) && (marks.length > 1 || marks[0] === ',')) both.push(body.replace(/[.,]/g, ''))
  return both.map(o => o + tail)
}

function sameUnit(word, unit) {
  const [a, b] = [word, unit].map(o => o.trim().replace(/\.+$/, '').toLowerCase())
  return !a || !b || a.startsWith(b.replace(/s+$/, '')) || b.startsWith(a)
}

function numbers(given, unit) {
  const found = String(given).trim().replaceAll('−', '-').replaceAll('\u00a0', ' ').match(NUMBER)
  const all = found ? readings(found[1]).map(o => Number(o)/Number(found[2] ?? 1)).filter(Number.isFinite) : []
  if (!all.length) throw `The answer should be a number, such as 12, 0.5 or 1e-3; found “${given.trim()}”.`
  const [share, ofPercent] = [found[3], unit].map(o => /^(%|per ?cent)/i.test(o))
  if (!share && !sameUnit(found[3], unit)) throw `The answer is wanted in ${unit}, found “${found[3]}”.`
  return share && !ofPercent ? all.map(x => x/100) : all // 12 % is 0.12, unless percent were asked for
}

const item = (form, key) => [...solution(form).querySelectorAll('[data-key]')].find(o => o.dataset.key === String(key))
const solution = form => form.parentElement.querySelector('details.solution')
const ticked = form => [...form.querySelectorAll('fieldset:not([hidden]) input:checked')].map(o => Number(o.value))

// Each takes a form and its key; gives the share that is right, and what to say: pairs of a heading and a part of the solution.
const judges = {
  single(form, { right }) {
    const [chosen] = ticked(form)
    if (chosen === undefined) throw 'Nothing is chosen so far; choose one answer first.'
    const good = right.includes(chosen)
    return [Number(good), [['Your answer', item(form, chosen)], ...(good ? [] : [['Right is', item(form, right[0])]])]]
  },
  multiple(form, { right }) {
    const taken = ticked(form), all = [...form.querySelectorAll('input')].map(o => Number(o.value)).sort((a, b) => a - b)
    if (!taken.length) throw 'Nothing is ticked so far; tick all that are right first.'
    const good = taken.reduce((sum, i) => sum + (right.includes(i) ? 1 : -1), 0)
    const head = i => taken.includes(i) ? (right.includes(i) ? 'Right is' : 'Wrong is') : right.includes(i) ? 'Missed was' : ''
    return [Math.max(0, good)/right.length, all.filter(head).map(i => [head(i), item(form, i)])]
  },
  number(form, { answer, tolerance, unit = '' }) {
    const given = form.querySelector('input').value
    if (!given.trim()) throw 'There is no answer so far; write a number first.'
    const found = numbers(given, unit)
    if (found.some(x => near(x, answer, tolerance))) return [1, []]
    const close = [...solution(form).querySelectorAll('.tempting [data-key]')]
      .flatMap(o => numbers(o.dataset.key, unit).flatMap(k => found.filter(x => near(x, k, tolerance)).map(x => [Math.abs(x - k), o])))
      .sort((a, b) => a[0] - b[0])
    return [0, close.length ? [['', close[0][1]]] : []]
  },
  output(form, { answer }) {
    const given = form.querySelector('textarea').value
    if (!given.trim()) throw 'There is no answer so far; write what is printed first.'
    const found = lines(given), right = lines(answer)
    if (found.join('\n') === right.join('\n')) return [1, []]
    const tempting = [...solution(form).querySelectorAll('.tempting [data-key]')].find(o => lines(o.dataset.key).join('\n') === found.join('\n'))
    const same = found.filter((o, i) => o === right[i]).length, first = right.findIndex((o, i) => o !== found[i])
    const where = first < 0 ? `It prints no more than ${right.length} line${right.length > 1 ? 's' : ''}.` : `Line ${first + 1} is “${right[first]}”.`
    return [same/Math.max(found.length, right.length), tempting ? [['', tempting]] : right.length === 1 && found.length === 1 ? [] : [['', where]]]
  },
  order(form, { steps }) {
    const order = [...form.querySelectorAll('li')].map(o => Number(o.dataset.step))
    let good = 0
    for (let i = 0; i < steps; i++) for (let j = i + 1; j < steps; j++) good += order[i] < order[j]
    const first = order.findIndex((k, i) => k !== i)
    return [good/(steps*(steps - 1)/2), first < 0 ? [] : [[`At place ${first + 1} stands`, item(form, first)]]]
  },
  text(form, { points }) {
    const held = ticked(form), missed = [...Array(points).keys()].filter(i => !held.includes(i))
    return [held.length/points, missed.map(i => ['Still to add', item(form, i)])]
  },
}

// ---- saying

function part(tag, name, ...children) {
  const made = document.createElement(tag)
  if (name) made.className = name
  made.append(...children)
  return made
}

function say(form, ...parts) { form.querySelector('.said').replaceChildren(...parts) }

function why([head, what]) {
  const made = part('li', '', ...(head ? [part('strong', '', `${head}: `)] : []))
  if (typeof what === 'string') { made.append(what); return made }
  const copy = what.cloneNode(true)
  for (const o of copy.querySelectorAll('[id]')) o.removeAttribute('id')
  if (head) copy.querySelector('.grade')?.remove()
  const first = copy.firstElementChild
  if (head && first?.localName === 'p') first.replaceWith(...first.childNodes)
  made.append(...copy.childNodes)
  return made
}

function pronounce(form, share, said) {
  const [kind, word] = share === 1 ? ['right', '✓ Right.'] : share ? ['partly', '◐ Partly right.'] : ['wrong', '✗ Not right.']
  const parts = [part('p', 'verdict', part('strong', '', word))]
  if (said.length) parts.push(part('ul', '', ...said.map(why)))
  const because = solution(form).querySelector('.because').cloneNode(true)
  const box = part('div', kind, ...parts, because)
  say(form, box)
  solution(form).hidden = false
  solution(form).querySelector('summary').textContent = 'The whole answer'
}

// ---- a question

function askOwnWords(form) {
  const points = form.querySelector('.points')
  if (!points.hidden) return false
  if (!form.querySelector('textarea').value.trim()) throw 'There is no answer so far; write one first.'
  points.hidden = false
  const model = part('div', 'model', part('strong', '', 'A model answer: '), ...solution(form).querySelector('.model').cloneNode(true).childNodes)
  points.before(model)
  say(form, part('p', '', 'A model answer is shown. Tick what yours holds, then press the button again.'))
  form.querySelector('[type=submit]').textContent = 'Grade my answer'
  return true
}

function submit(event) {
  event.preventDefault()
  const form = event.target, { id, kind } = form.dataset
  try {
    if (kind === 'text' && askOwnWords(form)) return
    const [share, said] = judges[kind](form, JSON.parse(form.dataset.answer))
    pronounce(form, share, said)
    const given = JSON.stringify([ticked(form), [...form.querySelectorAll('li')].map(o => o.dataset.step), form.querySelector('input[type=text], textarea')?.value])
    if (form.given === given) return
    form.given = given
    const fault = keep([...answers(), { question: id, right: share === 1, share, when: new Date().toISOString(), face: 'site' }])
    if (fault) form.querySelector('.said').append(part('p', '', fault))
    progress()
  } catch (error) {
    if (typeof error !== 'string') throw error
    say(form, part('p', '', error))
  }
}

// Steps are moved by buttons; the focus goes along.
function movable(form) {
  const list = form.querySelector('ol.sortable'), text = li => li.querySelector('p').textContent
  const name = () => [...list.children].forEach((li, i) => {
    const [up, down] = li.querySelectorAll('button')
    up.disabled = i === 0, down.disabled = i === list.children.length - 1
    up.setAttribute('aria-label', `Move up, now step ${i + 1}: ${text(li)}`)
    down.setAttribute('aria-label', `Move down, now step ${i + 1}: ${text(li)}`)
  })
  const move = (li, button, by) => {
    if (by < 0) li.previousElementSibling.before(li)
    else li.nextElementSibling.after(li)
    name()
    const to = button.disabled ? [...li.querySelectorAll('button')].find(o => !o.disabled) : button
    to.focus()
    say(form, part('p', '', `Moved to place ${[...list.children].indexOf(li) + 1} of ${list.children.length}`))
  }
  for (const li of list.children) {
    const buttons = ['↑', '↓'].map((sign, i) => {
      const button = part('button', 'move', sign)
      button.type = 'button'
      button.addEventListener('click', () => move(li, button, i ? 1 : -1))
      return button
    })
    li.prepend(part('span', 'moves', ...buttons))
  }
  name()
}

// ---- the whole page

const bar = document.querySelector('.progress')

function progress() {
  const last = new Map(answers().map(o => [o.question, o])), ids = forms.map(o => o.dataset.id)
  const done = ids.filter(o => last.has(o)), right = done.filter(o => last.get(o).right)
  bar.querySelector('p').textContent = `${done.length} of ${ids.length} answered, ${right.length} of them right`
  bar.querySelector('progress').max = ids.length
  bar.querySelector('progress').value = done.length
  for (const form of forms) {
    const kept = last.get(form.dataset.id), heading = form.parentElement.querySelector('h2')
    heading.querySelector('.mark')?.remove()
    if (kept) heading.append(part('span', 'mark', kept.right ? ' ✓ right' : ' ✗ not yet right'))
  }
}

bar.querySelector('.export').addEventListener('click', () => {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([JSON.stringify(answers(), null, 1) + '\n'], { type: 'application/json' }))
  link.download = 'topdown-answers.json'
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
})
bar.querySelector('.forget').addEventListener('click', () => {
  if (!confirm('Forget all answers of all lessons that this browser keeps? An export is a way to keep them.')) return
  keep([])
  progress()
})

for (const form of forms) {
  solution(form).hidden = true
  form.querySelector('[type=submit]').hidden = false
  form.addEventListener('submit', submit)
  if (form.dataset.kind === 'order') movable(form)
  if (form.dataset.kind === 'text') form.querySelector('[type=submit]').textContent = 'Show a model answer'
}
bar.hidden = false
progress()
