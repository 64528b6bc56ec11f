// Runs in a notebook when the widget of the questions appears; `this` is an element in it. What ipywidgets leaves out is added here.
const root = this.closest('.topdown-quiz'), all = what => [...root.querySelectorAll(what)];
root.id ||= 'topdown-quiz-' + Math.random().toString(36).slice(2);

// A group of boxes is named after the question.
function group(box, role) {
  box.setAttribute('role', role);
  box.setAttribute('aria-label', root.querySelector('[data-ask]').dataset.ask);
}

// A label is made of letters only; the formatted text takes their place. Formulas are drawn, not written: their letters become the name.
function label(o, rich) {
  const input = o.querySelector('input');
  input.removeAttribute('title');
  if (!rich) return;
  let span = o.querySelector('[data-rich]');
  if (!span) {
    const letters = o.querySelector('span') ?? o.firstChild;
    if (rich.dataset.label) input.setAttribute('aria-label', letters.textContent);
    span = document.createElement('span');
    span.dataset.rich = '';
    letters.replaceWith(span);
  }
  if (span.made !== rich.innerHTML) span.innerHTML = span.made = rich.innerHTML;
}

function tidy() {
  const rich = all('.topdown-quiz-rich [data-label]');
  all('.widget-radio-box label, .widget-checkbox label').filter(o => o.querySelector('input')).forEach((o, i) => label(o, rich[i]));
  all('input[type=radio]').forEach(o => { o.name = root.id + '-radio' }); // which makes the arrow keys work
  all('.widget-radio-box').forEach(o => group(o, 'radiogroup'));
  all('.topdown-quiz-group').forEach(o => group(o, 'group'));
  all('.topdown-quiz-move').forEach(o => o.setAttribute('aria-label', o.title));
  all('.topdown-quiz-said').forEach(o => o.setAttribute('role', 'status'));
  all('.topdown-quiz-rich').forEach(o => o.setAttribute('aria-hidden', 'true'));
  const heading = root.querySelector('h3[data-new]'); // of the next question; once only, for ipywidgets may draw it a second time
  if (heading && root.dataset.turn !== heading.dataset.new) { root.dataset.turn = heading.dataset.new; heading.focus() }
}

root.addEventListener('focusin', event => event.target.setAttribute('data-lm-suppress-shortcuts', 'true')); // keys are ours, not JupyterLab's
new MutationObserver(tidy).observe(root, { childList: true, subtree: true, characterData: true });
tidy();
