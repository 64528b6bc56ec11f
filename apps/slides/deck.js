// Start reveal.js, and give a slide that is a little too full a slightly smaller type: never below 18 pixels of 720 for code, 19 for text.
'use strict';

function fit(slide) {
  const sheet = slide.querySelector('.sheet');
  if (!sheet) return;
  const least = sheet.querySelector('.code') ? 0.85 : 0.68;
  for (let part = 1; part >= least; part -= 0.03) {
    sheet.style.setProperty('--part', part);
    if (sheet.scrollHeight <= sheet.clientHeight) return;
  }
}

Reveal.on('ready', event => fit(event.currentSlide));
Reveal.on('slidechanged', event => fit(event.currentSlide));
Reveal.initialize({ width: 1280, height: 720, margin: 0, minScale: 0.1, maxScale: 4, center: false, hash: true, transition: 'none',
  backgroundTransition: 'none', slideNumber: 'c/t', controlsTutorial: false, plugins: [RevealNotes] });
