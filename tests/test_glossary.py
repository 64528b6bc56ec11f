"""The glossary as cards"""
import re

import pytest

from topdown.quiz import as_card, cards, judge
from topdown.settings import CourseError, course, course_root

PAGE = course_root()/'nbs'/'reference'/'glossary.qmd'


def page(tmp_path, *rows):
    "A glossary with these rows"
    path = tmp_path/'glossary.qmd'
    path.write_text('\n'.join(['---', 'title: Glossary', '---', '', '| word | meaning | lesson |', '| --- | --- | --- |', *rows]) + '\n', encoding='utf-8')
    return path


def row(word, meaning, at='[3](../03_how_a_network_learns.ipynb)'): return f'| {word} | {meaning} | {at} |'


def test_each_row_is_a_card():
    rows = [line for line in PAGE.read_text(encoding='utf-8').splitlines() if re.match(r'\| (?!word \||---)', line)]
    made = cards()
    assert len(made) == len(rows) > 200 and len({c.id for c in made}) == len(made)
    for line, c in zip(rows, made):
        word = line.split(' | ')[0].removeprefix('| ')
        assert c.id == f'glossary.{word}' and c.kind == 'text' and c.ask == f'What does *{word}* mean?' and f'../{c.lesson.name}.ipynb' in line


def test_no_card_only_says_see(): assert not [c.id for c in cards() if c.model.startswith('see ')]


def test_cards_of_one_lesson():
    by_lesson = {o.number: cards(o.number) for o in course().lessons}
    assert sum(map(len, by_lesson.values())) == len(cards()) and all(by_lesson.values())
    assert all(c.lesson.number == number for number, some in by_lesson.items() for c in some)
    with pytest.raises(CourseError, match="unknown lesson '44'"): cards(44)


def test_a_word_that_names_another_gets_its_meaning(tmp_path):
    path = page(tmp_path, row('autograd', 'a tape'), row('automatic differentiation', 'see autograd'), row('batch, mini-batch', 'a group'), row('small batch', 'see mini-batch'), row('tiny batch', 'see small batch'))
    assert [c.model for c in cards(path=path)] == ['a tape', 'the same as autograd: a tape', 'a group', 'the same as mini-batch: a group', 'the same as mini-batch: a group']


@pytest.mark.parametrize('rows, line, said', [
    ([row('a', 'see b')], 7, "'a' says see 'b', which has no meaning of its own"), ([row('a', 'see b'), row('b', 'see a')], 7, 'has no meaning of its own'),
    ([row('a', 'b'), '| c | d |'], 8, r'a row should be \| word \| meaning'), ([row('a', 'b', '3')], 7, 'a row should be')])
def test_mistakes_in_the_page_name_their_line(tmp_path, rows, line, said):
    with pytest.raises(CourseError, match=f'line {line}: .*{said}'): cards(path=page(tmp_path, *rows))


def test_a_missing_page_is_named(tmp_path):
    with pytest.raises(CourseError, match='no glossary at .*none.qmd'): cards(path=tmp_path/'none.qmd')


def test_a_card_is_judged_by_the_reader():
    card = cards(3)[0]
    assert judge(card, {0}).right and judge(card, set()).lines[-1].startswith(f'Read again: lesson 3, “{card.lesson.title}”')
    assert as_card(card).front == card.ask and as_card(card).back == card.model
