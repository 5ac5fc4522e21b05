// The operator's page.  It talks to /admin/v1 with the key that was typed in, which lives in this closure only:
// no cookie, so no other page can act in the operator's name.  Everything from the server is set as text.
'use strict'
;(function () {
  const IDLE_MS = 15 * 60 * 1000, LIVE_MS = 2000, SAMPLES = 60, HOUR = 3600, DAY = 86400
  const VIEWS = ['accounts', 'account', 'review', 'clusters', 'cluster', 'calibration', 'whatif', 'requests', 'appeals', 'trail']
  const GUARD_VIEWS = ['review', 'clusters', 'calibration', 'whatif']
  const $ = id => document.getElementById(id)
  let guarded = false, key = null, timer = null, idle = null, view = 'accounts', rates = [], last = null

  // ---- elements ----
  function make(tag, options, ...children) {
    const e = document.createElement(tag)
    for (const [name, value] of Object.entries(options || {})) {
      if (name === 'text') e.textContent = value
      else if (name === 'click') e.addEventListener('click', value)
      else if (name === 'class') e.className = value
      else e.setAttribute(name, value)
    }
    e.append(...children)
    return e
  }
  function fill(parent, ...children) { parent.replaceChildren(...children) }
  function spark(values, label) {
    const W = 132, H = 26, SVG = 'http://www.w3.org/2000/svg'
    const svg = document.createElementNS(SVG, 'svg'), top = Math.max(1, ...values)
    for (const [n, v] of Object.entries({ class: 'spark', width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: 'img' }))
      svg.setAttribute(n, v)
    const title = document.createElementNS(SVG, 'title')
    title.textContent = `${label}; most ${number(top)}`
    const base = document.createElementNS(SVG, 'line')
    for (const [n, v] of Object.entries({ x1: 0, x2: W, y1: H - 1, y2: H - 1 })) base.setAttribute(n, v)
    const line = document.createElementNS(SVG, 'polyline')
    line.setAttribute('points', values.map((v, i) =>
      `${(i * W / Math.max(1, values.length - 1)).toFixed(1)},${(H - 2 - v / top * (H - 4)).toFixed(1)}`).join(' '))
    svg.append(title, base, line)
    return svg
  }
  function table(heads, rows, none) {
    if (!rows.length) return make('p', { class: 'empty', text: none })
    const numeric = h => h.startsWith('#'), clean = h => h.replace('#', '')
    const head = make('tr', {}, ...heads.map(h => make('th', { text: clean(h), class: numeric(h) ? 'number' : '' })))
    const body = rows.map(cells => make('tr', {}, ...cells.map((cell, i) => {
      const td = make('td', { class: numeric(heads[i]) ? 'number' : '' })
      td.append(cell instanceof Node ? cell : String(cell ?? '–'))
      return td
    })))
    return make('div', { class: 'scroll' }, make('table', {}, make('thead', {}, head), make('tbody', {}, ...body)))
  }
  function facts(pairs) {
    return make('dl', { class: 'facts' }, ...pairs.map(([name, value]) =>
      make('div', {}, make('dt', { text: name }), make('dd', { text: value || '–' }))))
  }
  const number = n => n >= 1e6 ? (n / 1e6).toFixed(1) + ' M' : n >= 1e4 ? (n / 1e3).toFixed(1) + ' k' : String(Math.round(n))
  const when = s => s ? new Date(s * 1000).toISOString().slice(0, 16).replace('T', ' ') : '–'
  const stateOf = a => make('span', { class: 'state ' + a.state, text: a.state })

  // ---- the server ----
  async function call(method, path, body) {
    const options = { method, headers: { Authorization: 'Bearer ' + key }, cache: 'no-store', redirect: 'error' }
    if (body) {
      options.headers['Content-Type'] = 'application/json'
      options.body = JSON.stringify(body)
    }
    const response = await fetch('/admin/v1' + path, options)
    const answer = await response.json()
    if (response.status === 401) leave('The key is not valid, or is no longer: ' + answer.error.message)
    if (!response.ok) throw new Error(answer.error ? answer.error.message : 'status ' + response.status)
    return answer
  }
  function say(text) {
    $('message').textContent = text
    $('message').hidden = !text
  }
  // Runs what a click asked for; a failure is shown, not lost.
  function act(work) {
    return async function (event) {
      if (event && event.preventDefault) event.preventDefault()
      wake()
      try {
        say('')
        await work(event)
      } catch (error) {
        if (key || error.fatal) say(error.message)
      }
    }
  }

  // ---- a session ----
  function wake() {
    clearTimeout(idle)
    if (key) idle = setTimeout(() => leave('The session has ended: 15 minutes without a click.'), IDLE_MS)
  }
  async function enter() {
    key = $('key').value.trim()
    $('key').value = ''
    try {
      await call('GET', '/live')
    } catch (error) {
      key = null
      error.fatal = true
      throw error
    }
    $('door').hidden = true
    for (const id of ['desk', 'live', 'leave']) $(id).hidden = false
    rates = []
    last = null
    wake()
    await look()
    await show('accounts')
    guarded = (await call('GET', '/live')).guard
    for (const name of GUARD_VIEWS) document.querySelector(`[data-view=${name}]`).hidden = !guarded
    timer = setInterval(() => look().catch(error => say(error.message)), LIVE_MS)
  }
  function leave(why) {
    key = null
    clearInterval(timer)
    clearTimeout(idle)
    $('door').hidden = false
    for (const id of ['desk', 'live', 'leave']) $(id).hidden = true
    for (const id of VIEWS) fill($(id))
    if ($('ask').open) $('ask').close('cancel')
    say(why || '')
    $('key').focus()
  }

  // ---- live figures ----
  async function look() {
    const live = await call('GET', '/live')
    if (last && live.at > last.at) rates.push((live.generated_tokens - last.generated_tokens) / (live.at - last.at))
    last = live
    rates = rates.slice(-SAMPLES)
    $('running').textContent = live.running
    $('queued').textContent = live.queued
    $('rate').textContent = number(rates.length ? rates[rates.length - 1] : 0)
    fill($('rate-line'), spark(rates.length ? rates : [0], 'tokens a second'))
    if (view === 'requests') showRequests(live)
  }
  function showRequests(live) {
    const rows = live.requests.map(r => [r.request, r.account ? accountLink(r.account, r.account) : '–', r.endpoint, r.model,
      number(r.prompt_tokens), number(r.output_tokens), r.seconds.toFixed(1)])
    fill($('requests'), make('h2', { text: 'Requests under way' }),
      table(['request', 'account', 'endpoint', 'model', '#prompt', '#answer', '#seconds'], rows, 'None at the moment.'))
  }

  // ---- accounts ----
  function accountLink(id, text) {
    return make('button', { type: 'button', class: 'link', text, click: act(() => showAccount(id)) })
  }
  // Requests of each hour (or day), oldest first.
  function series(rows, from, width, count, value) {
    const sums = new Array(count).fill(0)
    for (const row of rows) {
      const i = Math.floor((row.start - from) / width)
      if (i >= 0 && i < count) sums[i] += value(row)
    }
    return sums
  }
  async function all(path) {
    const rows = []
    for (let after = ''; rows.length < 5000;) {
      const page = await call('GET', path + (path.includes('?') ? '&' : '?') + 'limit=500' + after)
      rows.push(...page.data)
      if (!page.has_more) break
      after = '&after=' + encodeURIComponent(page.last_id)
    }
    return rows
  }
  async function showAccounts() {
    const from = (Math.floor(Date.now() / 1000 / HOUR) - 23) * HOUR
    const [accounts, usage] = await Promise.all([all('/accounts'), call('GET', `/usage?bucket=1h&group_by=account&from=${from}`)])
    const rows = accounts.map(a => {
      const own = usage.data.filter(u => u.account === a.id)
      const requests = series(own, from, HOUR, 24, u => u.requests)
      return [accountLink(a.id, a.name || a.id), stateOf(a), spark(requests, 'requests an hour, last day'),
        number(requests.reduce((x, y) => x + y, 0)), number(own.reduce((x, u) => x + u.input_tokens + u.output_tokens, 0)),
        number(own.reduce((x, u) => x + u.limited, 0))]
    })
    fill($('accounts'), make('h2', { text: `Accounts (${accounts.length})` }),
      table(['name', 'state', 'requests, 24 h', '#requests', '#tokens', '#limited'], rows, 'No accounts yet: retort account create NAME'))
  }
  function limitText(limits) {
    const named = Object.entries(limits || {}).filter(([, v]) => v !== null)
    return named.map(([n, v]) => n === 'budget' ? `budget ${v.amount} ${v.unit}/${v.period}` : `${n} ${v}`).join(', ') || 'none'
  }
  async function showAccount(id) {
    const path = '/accounts/' + encodeURIComponent(id), from = (Math.floor(Date.now() / 1000 / DAY) - 29) * DAY
    const [a, keys, usage, requests, cases] = await Promise.all([call('GET', path), call('GET', path + '/keys'),
      call('GET', `/usage?bucket=1d&account=${encodeURIComponent(id)}&from=${from}`),
      call('GET', `/requests?account=${encodeURIComponent(id)}&limit=50`), call('GET', `/cases?account=${encodeURIComponent(id)}`)])
    const buttons = make('div', { class: 'row' })
    if (a.state !== 'suspended' && a.state !== 'closed')
      buttons.append(make('button', { type: 'button', class: 'danger', id: 'suspend', text: 'Suspend …', click: act(() => suspend(a)) }))
    if (a.state !== 'active' && a.state !== 'closed')
      buttons.append(make('button', { type: 'button', id: 'reinstate', text: 'Restore …', click: act(() => reinstate(a)) }))
    buttons.append(make('button', { type: 'button', text: 'Back', click: act(() => show('accounts')) }))
    select('account')
    fill($('account'), make('h2', { text: a.name || a.id }), make('div', { class: 'row' }, stateOf(a),
      make('span', { class: 'soft', text: a.public_reason || '' })), buttons,
    facts([['account', a.id], ['contact', a.contact], ['created', when(a.created)], ['limits', limitText(a.limits)],
      ['case', a.case], ['until', a.until ? when(a.until) : null], ['terms accepted', a.terms_accepted]]),
    make('h2', { text: 'Requests and tokens a day, last 30' }), make('div', { class: 'row' },
      spark(series(usage.data, from, DAY, 30, u => u.requests), 'requests a day'),
      spark(series(usage.data, from, DAY, 30, u => u.input_tokens + u.output_tokens), 'tokens a day')),
    ...(guarded ? await pages.accountPart(id) : []),
    make('h2', { text: 'Keys' }), table(['key', 'name', 'last used', 'state'], keys.data.map(k =>
      [make('code', { text: k.key }), k.name, when(k.last_used), k.revoked ? 'revoked' : k.expires ? 'until ' + when(k.expires) : 'valid']), 'None.'),
    make('h2', { text: 'Cases' }), table(['case', 'opened', 'action', 'reason', 'outcome'], cases.data.map(c =>
      [c.id, when(c.opened), c.action, c.reason, c.outcome || c.state]), 'None.'),
    make('h2', { text: 'Last requests' }), table(['time', 'endpoint', 'model', '#status', '#input', '#output', 'outcome'],
      requests.data.map(r => [when(r.at), r.endpoint, r.model, r.status, r.input_tokens, r.output_tokens, r.outcome]), 'None.'))
  }

  // ---- decisions: always with a reason, always in the trail ----
  function ask(title, ok, fields) {
    $('ask-title').textContent = title
    $('ask-ok').textContent = ok
    const inputs = {}
    fill($('ask-fields'), ...fields.flatMap(([name, label, required]) => {
      const id = 'ask-' + name
      inputs[name] = make('textarea', { id, ...(required ? { required: '' } : {}) })
      return [make('label', { for: id, text: label }), inputs[name]]
    }))
    return new Promise(resolve => {
      $('ask').returnValue = 'cancel'
      $('ask').onclose = () => resolve($('ask').returnValue === 'ok' && key
        ? Object.fromEntries(Object.entries(inputs).map(([n, e]) => [n, e.value.trim()])) : null)
      $('ask').showModal()
    })
  }
  // somebody else may have decided since this page was read
  const seen = a => a.case === undefined ? {} : { seen: a.case || '' }

  async function suspend(a) {
    const given = await ask(`Suspend ${a.name || a.id}?`, 'Suspend', [['reason', 'Reason, for the record', true],
      ['public', 'What the account is told', true]])
    if (!given) return
    const known = guarded ? await call('GET', '/guard/accounts/' + encodeURIComponent(a.id)).catch(() => null) : null
    const evidence = known && known.history ? known.history.exemplars.map(x => x.request) : []
    await call('POST', `/accounts/${encodeURIComponent(a.id)}/suspend`, { reason: given.reason, public_reason: given.public, evidence, ...seen(a) })
    await showAccount(a.id)
  }
  async function reinstate(a) {
    const given = await ask(`Restore ${a.name || a.id}?`, 'Restore', [['note', 'Why, for the record', true]])
    if (!given) return
    await call('POST', `/accounts/${encodeURIComponent(a.id)}/reinstate`, { note: given.note, ...seen(a) })
    await showAccount(a.id)
  }
  async function decide(appeal, outcome) {
    const given = await ask({ uphold: 'Uphold the decision?', reinstate: 'Restore the account?', reduce: 'Reduce to a throttle?' }[outcome],
      'Decide', [['note', 'Why, for the record', true]])
    if (!given) return
    await call('POST', `/cases/${encodeURIComponent(appeal.case)}/decide`, { outcome, note: given.note })
    await showAppeals()
  }
  async function showAppeals() {
    const appeals = (await call('GET', '/appeals')).data
    const open = appeals.filter(a => a.state === 'open')
    $('appeal-count').textContent = open.length ? `(${open.length})` : ''
    fill($('appeals'), make('h2', { text: 'Appeals' }), ...(appeals.length ? [] : [make('p', { class: 'empty', text: 'None.' })]),
      ...open.concat(appeals.filter(a => a.state !== 'open')).map(a => make('div', { class: 'card' },
        make('div', { class: 'row' }, accountLink(a.account, a.account), make('span', { class: 'soft', text: `${a.case}, ${when(a.created)}, ${a.outcome || a.state}` })),
        make('blockquote', { text: a.statement }), ...(a.state === 'open' ? [make('div', { class: 'row' },
          make('button', { type: 'button', text: 'Restore …', click: act(() => decide(a, 'reinstate')) }),
          make('button', { type: 'button', text: 'Reduce …', click: act(() => decide(a, 'reduce')) }),
          make('button', { type: 'button', text: 'Uphold …', click: act(() => decide(a, 'uphold')) }))] : []))))
  }
  async function showTrail() {
    const [rows, check] = await Promise.all([all('/audit'), call('GET', '/audit/verify')])
    fill($('trail'), make('h2', { text: 'Audit trail' }), make('p', { class: 'soft', text: check.valid
      ? `Whole: ${check.rows} rows, chained and signed.` : 'NOT WHOLE: ' + check.fault }),
    table(['time', 'actor', 'action', 'subject', 'detail'], rows.reverse().slice(0, 500).map(r =>
      [when(r.at), r.actor, r.action, r.subject, make('code', { text: JSON.stringify(r.detail) })]), 'Empty.'))
  }

  // ---- the guard's pages ----
  const pages = window.retortGuardPages({ make, fill, table, facts, number, when, call, act, ask, accountLink, suspend, reinstate, seen, select, show, showAccount, section: $ })
  // ---- views ----
  function select(name) {
    view = name
    for (const id of VIEWS) $(id).hidden = id !== name
    for (const b of document.querySelectorAll('nav button')) b.classList.toggle('here', b.dataset.view === name)
  }
  async function show(name) {
    select(name)
    if (name === 'accounts') await showAccounts()
    else if (name === 'requests') await look()
    else if (name === 'review') await pages.showReview()
    else if (name === 'clusters') await pages.showClusters()
    else if (name === 'calibration') await pages.showCalibration()
    else if (name === 'whatif') pages.showWhatIf()
    else if (name === 'appeals') await showAppeals()
    else await showTrail()
  }

  $('login').addEventListener('submit', act(enter))
  $('leave').addEventListener('click', () => leave(''))
  $('ask-cancel').addEventListener('click', () => $('ask').close('cancel'))
  for (const b of document.querySelectorAll('nav button')) b.addEventListener('click', act(() => show(b.dataset.view)))
  for (const event of ['pointerdown', 'keydown']) document.addEventListener(event, wake)
})()
