#!/usr/bin/env python3
"""Writes template_cases.json beside this script: templates, and what Jinja2 3.1, set up as transformers 5 sets
it up for chat templates, makes of them (or that it refuses them).  Needs jinja2."""
import datetime
import json
import pathlib
import re

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.ext import loopcontrols, Extension
from jinja2 import nodes
class Gen(Extension):
    tags={'generation'}
    def parse(self,parser):
        ln=next(parser.stream).lineno
        body=parser.parse_statements(['name:endgeneration'],drop_needle=True)
        return nodes.CallBlock(self.call_method('_g'),[],[],body).set_lineno(ln)
    def _g(self,caller): return caller()
def raise_exception(m): raise jinja2.exceptions.TemplateError(m)
def tojson(x,ensure_ascii=False,indent=None,separators=None,sort_keys=False): return json.dumps(x,ensure_ascii=ensure_ascii,indent=indent,separators=separators,sort_keys=sort_keys)
env=ImmutableSandboxedEnvironment(trim_blocks=True,lstrip_blocks=True,extensions=[Gen,loopcontrols])
env.filters['tojson']=tojson; env.globals['raise_exception']=raise_exception; env.globals['strftime_now']=lambda f:datetime.datetime.now().strftime(f)
tools=[{"type":"function","function":{"name":"get_weather","description":"Weather é \"x\" <b>","parameters":{"type":"object","properties":{"city":{"type":"string","enum":["a","b"]},"n":{"type":"integer","default":3}},"required":["city"]}}}]
msgs=[{"role":"system","content":"  Be nice. "},{"role":"user","content":"Hi <b>'q'</b>\n"},{"role":"assistant","content":"<think>\nhm\n</think>\n\nHello","tool_calls":[{"id":"abc123456","type":"function","function":{"name":"get_weather","arguments":{"city":"Öl","n":1.5}}}]},{"role":"tool","content":"sunny"},{"role":"tool","content":"warm"},{"role":"user","content":[{"type":"text","text":"part one"},{"type":"image"},{"type":"text","text":"two"}]},{"role":"assistant","content":None}]
base=dict(messages=msgs,tools=tools,bos_token="<s>",eos_token="</s>",add_generation_prompt=True,x=5,f=2.5,s="héLLo wörld",l=[3,1,2],d={"b":1,"a":{"z":None}},empty=[],n=None,big=2**40,neg=-7)
# Outside the subset: printed tuples, formatting, rare filters and statements, keys that are not text.
BEYOND = ["(1,2)", "(1,)", "partition", "round", "wordcount", "is lower", "is upper", "format", "'%s", '"%s', "%02d", "cycle", "(b, c)",
          "append", "% call", "% with", "attr(", "batch", "groupby", "center", "escape", "| e }", "urlencode", "0x10", "101",
          "{1:2}", "{{ self", ".index(", "rfind", "swapcase", "zfill", "items() | list", "| items", "dictsort }}"]
CASES, ERRORS, seen = [], [], set()


def add(template):
    if template in seen or any(word in template for word in BEYOND):
        return
    seen.add(template)
    try:
        CASES.append([template, env.from_string(template).render(**json.loads(json.dumps(base)))])
    except Exception:
        ERRORS.append(template)


E=r'''{{ x }} {{ f }} {{ 1.0 }} {{ 1e3 }} {{ 10**3 if false else 3 }} {{ none }} {{ n }} {{ true }} {{ True }} {{ l }} {{ d }} {{ (1,2) }} {{ (1,) }} {{ [] }} {{ {} }} {{ "a'b" }} {{ ["a'b", 'c"d', "\n\t\\é", none, 1.5] }}
{{ undefinedvar }}|{{ d.nope }}|{{ messages[0].role }}|{{ messages[0]['content'] }}|{{ messages[-1]['role'] }}
{{ 7 // 2 }} {{ 7 / 2 }} {{ 7 % 3 }} {{ -7 // 2 }} {{ neg % 3 }} {{ 2 ** 10 }} {{ 1 + 2 * 3 - 4 }} {{ 6 / 2 }} {{ 2.5 + 1 }} {{ "a" * 3 }} {{ "a" + "b" }} {{ "a" ~ 1 ~ none ~ 2.0 }} {{ l + [4] }} {{ -x }} {{ +x }}
{{ 1 == 1.0 }} {{ 1 < 2 < 3 }} {{ 1 < 3 > 2 }} {{ 'a' in 'abc' }} {{ 'z' not in d }} {{ 'b' in d }} {{ 3 in l }} {{ not x }} {{ x and 0 }} {{ 0 or 'y' }} {{ "a" < "b" }} {{ [1,2] == [1,2] }} {{ none == false }} {{ x != 5 }} {{ not x == 5 }} {{ x in [5] and not n }}
{{ 'yes' if x > 3 else 'no' }} {{ 'yes' if x > 30 }}| {{ ('a' if n else 'b') ~ 'c' }}
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.capitalize() }} {{ "  a ".strip() ~ '|' }} {{ "xxaxx".strip('x') }} {{ " a".lstrip() }} {{ "a ".rstrip() ~ '|' }} {{ "a,b,c".split(',') }} {{ " a  b ".split() }} {{ "a,b,c".split(',', 1) }} {{ "a,b".split(',')[-1] }} {{ s.startswith('hé') }} {{ s.endswith('x') }} {{ "aXbX".replace('X','--') }} {{ "aXbX".replace('X','--',1) }} {{ s.find('w') }} {{ ",".join(['a','b']) }} {{ "aaa".count('a') }} {{ "abc"[1:] }} {{ "abc"[::-1] }} {{ s[1] }} {{ s[-3:] }} {{ l[:2] }} {{ l[::-1] }} {{ l[1:][0] }} {{ "a-b".partition('-') }} {{ "x".isdigit() }} {{ "12".isdigit() }}
{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 'dflt') }} {{ d['a']['z'] }} {{ d.a.z }}
{{ s | upper }} {{ s | lower }} {{ s | title }} {{ s | capitalize }} {{ "  a " | trim ~ '|' }} {{ s | length }} {{ l | length }} {{ l | first }} {{ l | last }} {{ l | join(', ') }} {{ l | join }} {{ nope | default('D') }} {{ '' | default('D', true) }} {{ n | default('D') }} {{ n | default('D', boolean=true) }} {{ s | replace('l', 'L') }} {{ "abc" | list }} {{ x | string ~ 'z' }} {{ "12" | int + 1 }} {{ "x" | int }} {{ "1.5" | float }} {{ "zz" | int(7) }} {{ l | sort }} {{ l | sort(reverse=true) }} {{ l | max }} {{ l | min }} {{ l | sum }} {{ [1,1,2] | unique | list }} {{ d | dictsort }} {{ d | items | list }} {{ "a\nb" | indent(2) }} {{ "a\nb\n\nc" | indent(4, true) }} {{ s | safe }} {{ 3.7 | round }} {{ 3.14159 | round(2) }} {{ neg | abs }} {{ [1,2,3] | reverse | list }} {{ "a b" | wordcount }} {{ l | count }}
{{ messages | selectattr('role', 'equalto', 'tool') | map(attribute='content') | list }} {{ messages | rejectattr('role', 'equalto', 'tool') | list | length }} {{ messages | map(attribute='role') | join(',') }} {{ l | select('odd') | list }} {{ l | reject('odd') | list }} {{ l | map('string') | list }} {{ messages | selectattr('tool_calls', 'defined') | list | length }} {{ messages | selectattr('tool_calls') | list | length }} {{ ['a','B'] | map('upper') | list }} {{ [1,none,2] | select | list }} {{ [[1,2],[3]] | map('length') | list }} {{ messages | selectattr('role', 'in', ['tool','user']) | list | length }} {{ messages | map(attribute='nope', default='?') | list }}
{{ x is defined }} {{ nope is defined }} {{ nope is undefined }} {{ n is none }} {{ s is string }} {{ d is mapping }} {{ l is iterable }} {{ l is sequence }} {{ s is iterable }} {{ s is sequence }} {{ d is sequence }} {{ x is number }} {{ f is number }} {{ x is integer }} {{ f is float }} {{ true is boolean }} {{ true is number }} {{ x is boolean }} {{ true is true }} {{ false is false }} {{ x is odd }} {{ x is even }} {{ x is divisibleby 5 }} {{ x is equalto 5 }} {{ x is eq(5) }} {{ x is in l }} {{ x is not none }} {{ x is not defined }} {{ s is lower }} {{ 'A' is upper }} {{ x is ne 4 }} {{ x is gt 3 }} {{ x is sameas 5 }} {{ n is not none and x }}
{{ tools | tojson }} {{ tools | tojson(indent=4) }} {{ tools[0] | tojson(indent=2) }} {{ [] | tojson }} {{ {} | tojson(indent=2) }} {{ s | tojson }} {{ "\u2028<>&'\"\\/\x7f\x01" | tojson }} {{ 1.0 | tojson }} {{ 1e20 | tojson }} {{ 1e-7 | tojson }} {{ 0.1 | tojson }} {{ big | tojson }} {{ none | tojson }} {{ true | tojson }} {{ [1,[2,{"a":[]}]] | tojson(indent=1) }} {{ d | tojson(separators=(',', ':')) }} {{ d | tojson(sort_keys=true) }} {{ s | tojson(ensure_ascii=true) }}
{{ range(3) | list }} {{ range(1,4) | list }} {{ range(5,0,-2) | list }} {{ dict(a=1, b='x') }} {{ namespace(a=1).a }} {{ 1e20 }} {{ 1e16 }} {{ 1e15 }} {{ 1e-5 }} {{ 0.0001 }} {{ 123456789.123 }} {{ 1/3 }} {{ 2**53 }} {{ 100000000000000000000.0 }}
{{ 'a' 'b' }} {{ "%s-%d" | format('a', 3) }} {{ "%s and %s" % ('a', 'b') }} {{ [1,2,3][1] }} {{ {'a': 1}['a'] }} {{ {'a': 1}.a }} {{ ({'a': {'b': [1,2]}}).a.b[1] }} {{ "a" if "b" in "abc" and 3 > 2 else "c" }} {{ (1, 2)[0] }} {{ x|string|length }} {{ -5 | abs }} {{ (-5) | abs }} {{ 1 if not (n or empty) else 2 }}'''
for line in E.split('\n'):
    for ex in re.findall(r'\{\{.*?\}\}\}?(?:\|)?(?= |$|\|)',line):
        add(ex.rstrip('|') if ex.endswith('}}|') else ex)
    add(line)
S=[
"{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }} {{ loop.previtem.role if loop.previtem is defined }}-{{ loop.nextitem.role if loop.nextitem is defined }};{{ loop.cycle('a','b') }}\n{% endfor %}",
"{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %}","{% for k, v in d | dictsort %}{{ k }}={{ v }},{% endfor %}","{% for a, (b, c) in [[1,[2,3]]] %}{{a}}{{b}}{{c}}{% endfor %}",
"{% for i in empty %}x{% else %}none{% endfor %}","{% for i in l if i > 1 %}{{ i }}{{ loop.last }}{% endfor %}","{% for c in s %}[{{ c }}]{% endfor %}","{% for k in d %}{{ k }}{% endfor %}",
"{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
"{% set a = 1 %}{% for i in l %}{% set a = i %}{% endfor %}{{ a }}","{% set ns = namespace(a=1, b=[]) %}{% for i in l %}{% set ns.a = ns.a + i %}{% set ns.b = ns.b + [i] %}{% endfor %}{{ ns.a }} {{ ns.b }}",
"{% set a, b = 1, 2 %}{{ a }}{{ b }}","{% set t %}block {{ x }}\n{% endset %}[{{ t }}]","{% set t | upper %}block {{ s }}{% endset %}{{ t }}",
"{% macro f(a, b=2, c='z') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, c='q') }} {{ f(b=5, a=4) }} {{ f() }}",
"{% macro r(v, depth=0) %}{% if v is mapping %}{ {% for k, w in v.items() %}{{ k }}: {{ r(w, depth + 1) }}, {% endfor %}}{% else %}{{ v }}@{{ depth }}{% endif %}{% endmacro %}{{ r(d) }}",
"{%- macro g(x) -%}   {{ x }}   {%- endmacro -%}\n a {{- g(1) -}} b ","{% filter upper %}abc {{ s }}{% endfilter %}","{% if x == 1 %}a{% elif x == 5 %}b{% else %}c{% endif %}",
"  {% if true %}\n  a\n  {% endif %}\nb\n","\n\n{{ x }}\n\n{# comment #}\n  {# c #}  z\n{%- if x %}\n y {%- endif +%}\n k","a\n   {%+ if true %} b{% endif %}\n","{{- x -}}\n  \n  t   {{-  x  -}} u",
"{% raw %}{{ not }} {% x %}{% endraw %}","{% generation %}{{ x }}{% endgeneration %}!","{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] | trim %}{% set messages = messages[1:] %}{% endif %}{{ system_message }}{% for m in messages %}{{ m.role }}{% endfor %}",
"{{ raise_exception('Bad: ' ~ x) }}","{% if tools is not none and tools %}{% for t in tools %}{{ t.function.name }}{{ t | tojson }}{% endfor %}{% endif %}",
"{% set loop_messages = messages %}{% for m in loop_messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% endfor %}",
"{% for message in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}{{ index }}{{ message.role }};{% endfor %}",
"{% set content = messages[2].content.split('</think>')[-1].lstrip('\\n') %}[{{ content }}]{{ messages[2].content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}",
"{% for m in messages %}{% if m.content is string %}{{ m.content }}{% elif m.content is not none %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% else %}<img>{% endif %}{% endfor %}{% endif %}{% endfor %}",
"{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}{% for tc in m.tool_calls %}{{ '{\"name\": \"' + tc.function.name + '\", \"arguments\": ' }}{{ tc.function.arguments | tojson }}{{ '}' }}{% endfor %}{% endif %}{% endfor %}",
"{%- for message in messages %}\n    {%- if (message.role == 'user') or (message.role == 'system' and not loop.first) %}\n        {{- '<|im_start|>' + message.role + '\\n' }}\n    {%- elif message.role == 'tool' %}\n        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != 'tool') %}\n            {{- '<|im_start|>user' }}\n        {%- endif %}\n        {{- '\\n<tool_response>\\n' }}\n        {{- message.content }}\n        {%- if loop.last or (messages[loop.index0 + 1].role != 'tool') %}\n            {{- '<|im_end|>\\n' }}\n        {%- endif %}\n    {%- endif %}\n{%- endfor %}",
"{{ '%02d' % x }}","{{ strftime_now('%Y') | length }}","{% set x = namespace() %}{% set x.a = 1 %}{{ x.a }}{{ x.b is defined }}","{{ messages | length > 3 and messages[0].role == 'system' }}","{% set d2 = dict(d, c=3) %}{{ d2.c }}","{% for x in [1,2] %}{% for y in [3,4] %}{{ loop.parent }}{{ x }}{{ y }}{% endfor %}{% endfor %}",
"{% if a is defined %}x{% endif %}{% if not a is defined %}y{% endif %}","{{ d.update({'q': 1}) }}","{{ l.append(4) }}","{% set _ = l.append(4) %}{{ l }}","{{ x.y.z }}","{{ nope.z }}","{{ nope['z'] }}","{{ nope() }}","{{ 1 + 'a' }}","{{ 'a' + 1 }}","{{ n + 1 }}","{{ [1][5] }}","{{ 1 / 0 }}","{% for i in 5 %}{% endfor %}","{% for i in nope %}x{% endfor %}","{% for i in none %}x{% endfor %}","{{ nope ~ 'a' }}","{{ nope + 'a' }}","{{ nope == none }}","{{ none | length }}","{{ x | nofilter }}","{{ x is notest }}","{% if %}","{% if x %}","{% endif %}","{{ x","{% unknown %}","{{ 'abc }}","{{ x | }}","{{ a b }}",
"{%- set has = false -%}{% for m in messages %}{%- if m.role == 'tool' -%}{%- set has = true -%}{%- endif -%}{% endfor %}{{ has }}","{% call(u) f2() %}{{ u }}{% endcall %}","{% macro c2() %}[{{ caller() }}]{% endmacro %}{% call c2() %}hi{% endcall %}",
"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}","{{ messages[0]|attr('role') }}","{{ l is sequence and l is not mapping and l is not string }}","{{ 'a' if 1 else 'b' if 2 else 'c' }}","{{ not not x }}","{{ x if x else y if z else w }}","{{ (x, s)[1][:3] }}","{{ s[:-1] }}{{ s[10:20] }}{{ s[-100:2] }}","{{ l[5:] }}","{{ l | batch(2) | list }}","{{ [3,1,2] | sort | join('<') }}","{{ ['b','A','c'] | sort }}","{{ messages | sort(attribute='role') | map(attribute='role') | list }}","{{ messages | groupby('role') | length }}","{{ 'x' | center(5) }}|","{{ '<b>' | escape }}","{{ '<b>' | e }}","{{ 'abc' | truncate(2) }}","{{ l | tojson | safe }}","{{ 'a%b' | urlencode }}","{{ 5 | string | trim }}","{{ l | list | string }}","{{ 1_000 }}","{{ 0x10 }}","{{ .5 }}","{{ 5. }}",
"{{ '\\u00e9\\x41\\101\\\"' }}","{{ \"a\nb\" }}","{{ {'a':1,'b':2} | length }}","{{ {1:2}[1] }}","{{ [1,2,] }}{{ {'a':1,} }}","{{ x }}{# {{ y }} #}{{ x }}","{{ true and 'a' or 'b' }}","{{ messages[1:]|length }}{{ messages[1:][0].role }}","{%if x%}a{%endif%}{{x}}","{{loop}}","{{ self }}","{{ ''.join(['a','b']) }}","{{ 'a\\nb'.splitlines() }}","{{ 'abc'.index('c') }}","{{ s.rfind('l') }}","{{ 'a b'.title() }}","{{ 'Ab'.swapcase() }}","{{ 'a{}b'.format(1) }}","{{ 'ab'.zfill(5) }}","{{ 'a-b-c'.rsplit('-', 1) }}","{{ 'prefix_x'.removeprefix('prefix_') }}","{{ 'x' in ['x'] }}","{{ [1,2] is iterable }}","{{ ({}).get('a', {}).get('b', 3) }}","{{ d.pop('b') }}","{{ l | first + 1 }}","{{ -l[0] }}","{{ 2 - -2 }}","{{ x*2 }}","{{ 3 % 2 == 1 }}","{{ not 'a' in 'b' }}",
"{% set m = {'role': 'x', 'n': [1,2]} %}{{ m.n[0] }}{{ m['role'] }}{% set m = dict(m, role='y') %}{{ m.role }}","{% for i in range(2) -%}\n  {{ i }}\n{%- endfor %}","{% set ns = namespace(found=false) %}{% for m in messages if m.role == 'user' %}{% set ns.found = loop.length %}{% endfor %}{{ ns.found }}",
"{% set a = [1] %}{% set b = a + [2] %}{{ a }}{{ b }}","{% for m in messages | selectattr('role','equalto','user') %}{{ loop.index }}{{ m.role }}{% endfor %}","{% for m in messages %}{% if loop.index0 == 0 and m.role == 'system' %}S{% continue %}{% endif %}{{ m.role[0] }}{% endfor %}","{{ messages[0].content | trim | length }}","{{ \"it's\" }}{{ ['it\\'s'] }}","{{ 1 is defined }}{{ (x > 3) is true }}","{{ x is not number }}","{{ 'a' is string and 'b' is string }}","{{ n is none or n is undefined }}","{% if n is not none and n.x %}{% endif %}ok","{{ messages[10] is defined }}{{ messages[10].role is defined }}",
]
for t in S: add(t)
out = pathlib.Path(__file__).parent / "template_cases.json"
out.write_text(json.dumps({"variables": base, "cases": CASES, "errors": ERRORS}, indent=1) + "\n")
print(len(CASES), "cases,", len(ERRORS), "errors")
