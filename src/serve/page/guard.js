// The guard's pages: what to review, clusters, calibration, what-if, and the guard's part of an account's page.
// `desk` is what admin.js gives: elements, the call to the server, decisions.  The key stays there.
'use strict'
window.retortGuardPages = function (desk) {
  const { make, fill, table, facts, number, when, call, act, ask, accountLink, suspend, reinstate, seen, section } = desk
  const draw = window.retortDrawing
  const figure = v => v === null || v === undefined ? '–' : v >= 1e6 || v > 0 && v < 1e-3 ? v.toExponential(1) : v >= 100 ? Math.round(v).toLocaleString('en') : Number(v.toPrecision(2)).toString()
  const inWords = e => e > 1 ? `${figure(e)}: at most 1 benign account in ${figure(e)} ever gets so far` : `${figure(e)}: nothing speaks against it`
  const rungOf = a => make('span', { class: 'state ' + (a.proposed || a.rung === 'suspend' ? 'suspended' : a.rung === 'none' || !a.rung ? 'active' : 'throttled'),
    text: (a.rung || 'none') + (a.proposed ? ', suspension proposed' : '') + (a.answered ? ', has answered the challenge' : '') })

  function reasonTable(reasons) {
    const most = Math.max(0.1, ...reasons.map(r => Math.abs(r.contribution)))
    return table(['signal', '#value', 'above so many benign accounts', 'adds to the score'], reasons.map(r => [r.signal, figure(r.value),
      make('span', { class: 'pair' }, draw.bar(r.percentile, 100, `${r.percentile}%`), `${Math.round(r.percentile)}%`),
      make('span', { class: 'pair' }, draw.bar(r.contribution, most, figure(r.contribution)), r.contribution.toFixed(2))]), 'No signal stands out.')
  }

  // ---- decisions on several accounts: one reason, one row in the trail for each ----
  async function decideAll(rows, what) {
    const given = await ask(`${what === 'suspend' ? 'Suspend' : 'Restore'} ${rows.length} accounts?`, what === 'suspend' ? 'Suspend all' : 'Restore all',
      what === 'suspend' ? [['reason', 'Reason, for the record', true], ['public', 'What the accounts are told', true]] : [['note', 'Why, for the record', true]])
    if (!given) return false
    const failed = []
    for (const a of rows) {
      const path = `/accounts/${encodeURIComponent(a.account)}/${what}`
      const said = what === 'suspend' ? { reason: given.reason, public_reason: given.public, evidence: a.exemplars || [] } : { note: given.note }
      try {
        await call('POST', path, { ...said, ...seen(a) })
      } catch (error) {
        failed.push(`${a.account}: ${error.message}`)
      }
    }
    if (failed.length) throw new Error(`${failed.length} of ${rows.length} were not changed: ${failed.slice(0, 3).join('; ')}`)
    return true
  }
  function decisions(rows, again) {
    if (rows.length === 1) return make('div', { class: 'row' },
      make('button', { type: 'button', class: 'danger', text: 'Suspend …', click: act(() => suspend({ id: rows[0].account, case: rows[0].case })) }),
      make('button', { type: 'button', text: 'Restore …', click: act(() => reinstate({ id: rows[0].account, case: rows[0].case })) }))
    const all = what => act(async () => { if (await decideAll(rows, what)) await again() })
    return make('div', { class: 'row' },
      make('button', { type: 'button', class: 'danger', text: `Suspend all ${rows.length} …`, click: all('suspend') }),
      make('button', { type: 'button', text: `Restore all ${rows.length} …`, click: all('reinstate') }))
  }
  function clusterLink(id, words) {
    return make('button', { type: 'button', class: 'link', text: words, click: act(() => showCluster(id)) })
  }

  // ---- review ----
  function card(item) {
    const first = item.accounts.reduce((x, y) => y.e > x.e ? y : x)
    const title = item.kind === 'cluster' ? clusterLink(item.id, `Cluster ${item.id}: ${item.accounts.length} linked accounts`) : accountLink(first.account, first.account)
    const body = item.kind === 'cluster' ? [make('details', {}, make('summary', { text: `its ${item.accounts.length} accounts` }), memberTable(item.accounts))] : []
    return make('article', { class: 'card' + (item.waiting ? ' waiting' : '') }, make('div', { class: 'row' }, make('strong', {}, title), rungOf(first),
      make('span', { class: 'soft', text: item.why })),
    facts([['evidence e', inWords(item.e)], ['p of this week', figure(first.p)], ['requests', number(item.accounts.reduce((s, a) => s + a.requests, 0))],
      ['use', first.use_class]]), reasonTable(first.reasons), ...body, decisions(item.accounts, showReview))
  }
  async function showReview() {
    const [guard, review] = await Promise.all([call('GET', '/guard'), call('GET', '/guard/review?q=0.1')])
    const waiting = review.items.filter(i => i.waiting).length
    document.getElementById('review-count').textContent = waiting ? `(${waiting})` : ''
    fill(section('review'), make('h2', { text: 'What to review, most useful first' }), make('p', { class: 'soft', text:
      `${number(guard.judged)} requests of ${number(review.accounts)} accounts judged, ${guard.dropped} not, ${guard.decisions} decisions` +
      `${guard.dry_run ? ' (dry run: nothing is changed)' : ''}. ${review.items.length} of ${review.total} shown; of the ${review.listed} that stand out by p alone about ` +
      `${Math.round(100 * review.false_share)}% are expected to be there by chance.` }),
    ...(review.items.length ? review.items.map(card) : [make('p', { class: 'empty', text: 'Nothing is waiting, and nobody stands out.' })]))
  }

  // ---- clusters ----
  function memberTable(rows) {
    return table(['account', 'rung', '#requests', '#p', '#e', 'first reason'], rows.map(a => [accountLink(a.account, a.account), rungOf(a), number(a.requests),
      figure(a.p), figure(a.e), a.reasons[0] ? `${a.reasons[0].signal} ${figure(a.reasons[0].value)}` : '–']), 'None.')
  }
  async function showClusters() {
    const { clusters, total } = await call('GET', '/guard/clusters')
    fill(section('clusters'), make('h2', { text: `Clusters of linked accounts (${total})` }),
      make('p', { class: 'soft', text: 'Being linked accuses nobody: a class, an office, a family are clusters. p tells whether its members together do what benign accounts do not.' }),
      table(['cluster', '#accounts', '#p', '#mean e', 'what follows'], clusters.map(c => [clusterLink(c.cluster, `Cluster ${c.cluster}`), c.size, figure(c.p), figure(c.e),
        make('span', { class: 'state ' + (c.accused ? 'suspended' : 'active'), text: c.accused ? c.confirmed ? 'accused, confirmed among all clusters' : 'accused' : 'nothing' })]),
      'No accounts are linked.'))
  }
  function graphOf(cluster, here) {
    return make('figure', {}, draw.graph(cluster.members, cluster.links, here, account => act(() => desk.showAccount(account))()),
      make('figcaption', { class: 'soft', text: 'Lines: evidence that two accounts have one operator (thicker: more); what it is made of is told when the pointer rests on one. Larger: more requests. Red: e of 200 or more.' }))
  }
  async function showCluster(id) {
    const c = await call('GET', '/guard/clusters/' + id)
    const strongest = c.links.slice().sort((x, y) => y.total - x.total).slice(0, 30)
    const parts = ['address', 'payer', 'created', 'client', 'content', 'wrappers', 'overlap', 'presence']
    desk.select('cluster')
    fill(section('cluster'), make('h2', { text: `Cluster ${id}` }), facts([['accounts', String(c.size)], ['p that its members are benign', figure(c.p)],
      ['accused', c.accused ? 'yes' : 'no'], ['confirmed by e-BH among all clusters', c.confirmed ? 'yes' : 'no']]),
    c.accused ? decisions(c.members, () => showCluster(id)) : make('p', { class: 'soft', text: 'Linked, but not accused: nothing follows from it.' }),
    graphOf(c, null), make('h2', { text: 'Members' }), memberTable(c.members), make('h2', { text: 'Strongest links, nats by kind of evidence' }),
    table(['between', 'and', '#total', ...parts.map(p => '#' + p)], strongest.map(l => [c.members[l.a].account, c.members[l.b].account, l.total.toFixed(1),
      ...parts.map(p => l[p] ? l[p].toFixed(1) : '·')]), 'None.'), make('button', { type: 'button', text: 'All clusters', click: act(() => desk.show('clusters')) }))
  }

  // ---- the guard's part of an account's page ----
  function plots(history) {
    const whole = v => String(Math.round(v)), xs = history.points.map(p => p.requests), e = history.points.map(p => Math.max(-3, p.log_e / Math.LN10)), p = history.points.map(q => Math.log10(q.p))
    const box = (title, svg) => make('figure', { class: 'small' }, make('figcaption', { text: title }), svg)
    const power = v => v > 6 ? `10^${v.toFixed(0)}` : figure(10 ** v)
    const span = Math.max(0.5, ...history.points.flatMap(q => q.parts))
    return [make('div', { class: 'plots' },
      box('evidence e, by requests', draw.line(xs, e, { label: 'e by requests', format: power, xformat: whole, high: 3, marks: [{ y: Math.log10(200), words: '200' }] })),
      box('p of the week, by requests', draw.line(xs, p, { label: 'p by requests', format: power, xformat: whole, high: 0, low: -2.5, marks: [{ y: -2, words: '1%' }] }))),
    make('div', { class: 'plots' }, ...history.signals.map((name, s) => box(name + ', part of the score',
      draw.line(xs, history.points.map(q => q.parts[s]), { label: name, width: 200, height: 84, xformat: whole, high: span, low: Math.min(0, ...history.points.map(q => q.parts[s])) }))))]
  }
  async function showPrompt(cell, request) {
    try {
      const kept = await call('GET', `/requests/${encodeURIComponent(request)}/prompt`)
      cell.replaceWith(kept.text === null ? make('span', { class: 'soft', text: 'only its hash is kept' }) : make('blockquote', { text: kept.text }))
    } catch (error) {
      cell.replaceWith(make('span', { class: 'soft', text: error.message }))
    }
  }
  function exemplarTable(exemplars) {
    return table(['request', 'time', 'asks for', '#sure', 'prompt'], exemplars.slice().sort((x, y) => y.probability - x.probability).map(x => {
      const show = make('button', { type: 'button', class: 'link', text: 'Show', click: act(() => showPrompt(show, x.request)) })
      return [make('code', { text: x.request }), when(x.ts), x.wants || (x.top_logprobs ? `${x.top_logprobs} log-probabilities a token` : 'nothing that stands out'), figure(x.probability), show]
    }), 'None is kept: the account has not been worth looking at, or the policy keeps none.')
  }
  async function accountPart(id) {
    let a
    try {
      a = await call('GET', '/guard/accounts/' + encodeURIComponent(id))
    } catch (error) {
      return [make('h2', { text: 'Guard' }), make('p', { class: 'empty', text: error.message })]
    }
    const known = a.signals.filter(s => Math.abs(s.contribution) >= 0.02).sort((x, y) => Math.abs(y.contribution) - Math.abs(x.contribution))
    return [make('h2', { text: 'Guard' }), make('div', { class: 'row' }, rungOf(a), make('span', { class: 'soft', text: a.until ? `lapses ${when(a.until)} without stronger evidence` : '' })),
      facts([['evidence e', inWords(a.e)], ['p', figure(a.p)], ['requests', number(a.requests)], ['weeks', String(a.weeks)], ['first under 1%', a.flagged_at ? `after ${a.flagged_at} requests` : 'never'],
        ['use', a.use_class], ['confirmed among all accounts', a.confirmed ? 'yes' : 'no'], ['reference', a.reference]]),
      ...(a.history && a.history.points.length ? plots(a.history) : []), make('h2', { text: 'Signals' }),
      make('p', { class: 'soft', text: `Score ${a.score_now.toFixed(2)}: ${a.base.toFixed(2)} to begin with, and these.` }), reasonTable(known),
      make('h2', { text: 'Most telling requests' }), exemplarTable(a.history ? a.history.exemplars : []),
      ...(a.linked ? [make('h2', {}, clusterLink(a.linked.cluster, `Linked accounts: cluster ${a.linked.cluster} of ${a.linked.size}`)), graphOf(a.linked, id)] : [])]
  }

  // ---- calibration ----
  async function showCalibration() {
    const c = await call('GET', '/guard/calibration')
    const date = s => when(s).slice(0, 10)
    fill(section('calibration'), make('h2', { text: 'Does the reference fit?' }), facts([['reference', c.reference], ['accounts known', number(c.accounts)], ['dropped for want of room', number(c.evicted)],
      ['how alike one account’s weeks are', figure(c.habit)]]), ...c.classes.map(k => make('article', { class: 'card' + (k.alarm ? ' waiting' : '') },
      make('p', { class: k.alarm ? 'alarm' : 'soft', text: k.sentence }), ...(k.n ? [make('div', { class: 'plots' },
        make('figure', { class: 'small' }, make('figcaption', { text: `p-values of ${number(k.n)} full weeks; the line: were all benign` }), draw.histogram(k.bins, k.class)),
        ...(k.weeks.length > 1 ? [make('figure', { class: 'small' }, make('figcaption', { text: 'distance from uniform, week by week' }),
          draw.line(k.weeks.map(w => w.start), k.weeks.map(w => w.n >= 50 ? w.distance : NaN), { label: 'distance', low: 0, high: 0.2, xformat: date, marks: [{ y: k.allowed, words: 'allowed' }] }))] : []))] : []))),
    make('h2', { text: 'Which rates the reference supports' }), make('p', { class: 'soft', text:
      'An account alone can reach a rung in one week only where the reference holds enough benign accounts; several weeks, or linked accounts, reach further.' }),
    table(['rung', '#takes p', 'reads', ...c.classes.map(k => `${k.class} (${k.benign} benign)`)], c.rungs.map(r => [r.rung, figure(r.p), r.reads,
      ...r.alone.map(k => make('span', { class: 'state ' + (k.supported ? 'active' : 'watched'), text: k.supported ? 'in one week' : `not in one week: ${figure(k.best)} at best` }))]), 'The policy has no rungs.'))
  }

  // ---- what-if ----
  const presets = { 'the defaults': '', 'everything twice as strict': 'observe: {p: 0.1}\nslow: {p: 0.02}\nlogprobs: {p: 0.02}\nreasoning: {p: 0.01}\nchallenge: {p: 0.01}\nsuspend: {p: 0.005}\n',
    'everything half as strict': 'observe: {p: 0.025}\nslow: {p: 0.005}\nlogprobs: {p: 0.005}\nreasoning: {p: 0.0025}\nchallenge: {p: 0.0025}\nsuspend: {p: 0.00125}\n',
    'accuse by this week alone': 'ladder: {accuse_by: p}\n' }
  function showWhatIf() {
    const area = make('textarea', { id: 'policy', spellcheck: 'false', rows: 8, class: 'code' }), result = make('div', { id: 'whatif-result', 'aria-live': 'polite' })
    const choose = make('select', { id: 'preset' }, ...Object.keys(presets).map(name => make('option', { value: name, text: name })))
    const file = make('input', { type: 'file', id: 'policy-file', accept: '.yaml,.yml' })
    choose.addEventListener('change', () => { area.value = presets[choose.value] })
    file.addEventListener('change', act(async () => { if (file.files[0]) area.value = await file.files[0].text() }))
    const run = act(async () => {
      const w = await call('POST', '/guard/what-if', { policy: area.value })
      const most = Math.max(1, ...w.rungs.flatMap(r => r.rung === 'none' ? [] : [r.now, r.then]))
      fill(result, table(['rung', '#now', '', '#then', ''], w.rungs.map(r => [r.rung, number(r.now), r.rung === 'none' ? '' : draw.bar(r.now, most, `${r.now} accounts`), number(r.then),
        r.rung === 'none' ? '' : draw.bar(r.then, most, `${r.then} accounts`)]), ''), make('h2', { text: `${w.changed} ${w.changed === 1 ? 'account' : 'accounts'} would be treated otherwise` }),
      table(['account', 'now', 'then', '#p', '#e'], w.accounts.map(a => [accountLink(a.account, a.account), a.now, a.then, figure(a.p), figure(a.e)]), 'Nobody.'))
    })
    fill(section('whatif'), make('h2', { text: 'Who would be hit by another policy' }), make('p', { class: 'soft', text:
      'A policy as a YAML text; what it leaves out is as by default. Each account is judged anew, as if it had no history on the ladder. Nothing is changed.' }),
    make('div', { class: 'row' }, make('label', { for: 'preset', text: 'Begin with' }), choose, make('label', { for: 'policy-file', text: 'or a file' }), file),
    make('label', { for: 'policy', class: 'soft', text: 'The policy' }), area, make('div', { class: 'row' }, make('button', { type: 'button', id: 'try', text: 'Try', click: run })), result)
  }
  return { showReview, showClusters, showCalibration, showWhatIf, accountPart }
}
