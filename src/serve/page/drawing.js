// Pictures for the operator's pages: SVG by hand, colours by classes of the style sheet, no style attributes.
'use strict'
window.retortDrawing = (function () {
  const SVG = 'http://www.w3.org/2000/svg'
  function node(tag, attributes, ...children) {
    const e = document.createElementNS(SVG, tag)
    for (const [name, value] of Object.entries(attributes || {})) if (value !== null) e.setAttribute(name, value)
    e.append(...children)
    return e
  }
  function text(x, y, words, more) {
    const t = node('text', { x, y, ...more })
    t.textContent = words
    return t
  }
  function tip(words) {
    const t = node('title')
    t.textContent = words
    return t
  }
  const short = v => Number.isInteger(v) && Math.abs(v) < 1000 ? String(v) : Math.abs(v) >= 1000 ? v.toExponential(0) : Math.abs(v) >= 10 ? v.toFixed(0) : Math.abs(v) >= 1 ? v.toFixed(1) : Number(v.toPrecision(2)).toString()

  // One line over x; marks: horizontal lines {y, words}.  Values that are not finite break it.
  function line(xs, ys, options) {
    const W = options.width || 320, H = options.height || 120, L = 40, R = 10, T = 12, B = 22
    const marks = options.marks || [], finite = ys.filter(Number.isFinite).concat(marks.map(m => m.y))
    let low = Math.min(options.low ?? Infinity, ...finite), high = Math.max(options.high ?? -Infinity, ...finite)
    if (!(high > low)) { high = low + 1; low -= 1 }
    const x0 = xs[0] ?? 0, x1 = xs.length > 1 ? xs[xs.length - 1] : x0 + 1
    const px = x => L + (x - x0) / Math.max(1e-9, x1 - x0) * (W - L - R), py = y => H - B - (y - low) / (high - low) * (H - T - B)
    const svg = node('svg', { class: 'plot', viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: 'img' }, tip(options.label))
    for (const y of [low, high])
      svg.append(node('line', { class: 'grid', x1: L, x2: W - R, y1: py(y), y2: py(y) }), text(L - 5, py(y) + 4, (options.format || short)(y), { 'text-anchor': 'end' }))
    for (const m of marks)
      svg.append(node('line', { class: 'mark', x1: L, x2: W - R, y1: py(m.y), y2: py(m.y) }, tip(m.words)),
        text(W - R, py(m.y) - 3, m.words, { 'text-anchor': 'end', class: 'mark' }))
    let path = '', open = false
    ys.forEach((y, i) => {
      if (Number.isFinite(y)) path += `${open ? 'L' : 'M'}${px(xs[i]).toFixed(1)} ${py(y).toFixed(1)}`
      open = Number.isFinite(y)
    })
    if (path) svg.append(node('path', { class: 'line', d: path }))
    const last = ys.length - 1
    if (last >= 0 && Number.isFinite(ys[last])) svg.append(node('circle', { class: 'dot', cx: px(xs[last]), cy: py(ys[last]), r: 3 }, tip(short(ys[last]))))
    svg.append(text(L, H - 6, (options.xformat || short)(x0)), text(W - R, H - 6, (options.xformat || short)(x1), { 'text-anchor': 'end' }))
    return svg
  }

  // Bars of counts over (0, 1], with the height that a uniform distribution has.
  function histogram(counts, label) {
    const W = 320, H = 130, L = 36, B = 22, T = 10, n = counts.reduce((a, b) => a + b, 0), even = n / counts.length
    const top = Math.max(even * 1.5, ...counts, 1), width = (W - L - 6) / counts.length
    const svg = node('svg', { class: 'plot', viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: 'img' }, tip(label))
    counts.forEach((c, i) => {
      const h = c / top * (H - T - B)
      svg.append(node('rect', { class: i === 0 ? 'bar first' : 'bar', x: L + i * width + 1, y: H - B - h, width: width - 2, height: h },
        tip(`p from ${(i / counts.length).toFixed(2)} to ${((i + 1) / counts.length).toFixed(2)}: ${c} accounts`)))
    })
    const y = H - B - even / top * (H - T - B)
    svg.append(node('line', { class: 'grid', x1: L, x2: W - 6, y1: H - B, y2: H - B }), node('line', { class: 'mark', x1: L, x2: W - 6, y1: y, y2: y }),
      text(L - 5, y + 4, short(even), { 'text-anchor': 'end' }), text(L, H - 6, 'p 0'), text(W - 6, H - 6, '1', { 'text-anchor': 'end' }))
    return svg
  }

  // A share from 0 to 1, or a signed part of `most`, as a bar in a table.
  function bar(value, most, words) {
    const W = 90, H = 12, svg = node('svg', { class: 'plot bar-cell', viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: 'img' }, tip(words))
    const w = Math.min(1, Math.abs(value) / Math.max(1e-9, most)) * W
    svg.append(node('rect', { class: 'track', x: 0, y: 4, width: W, height: 4 }), node('rect', { class: value < 0 ? 'bar low' : 'bar', x: 0, y: 1, width: w, height: H - 2 }))
    return svg
  }

  // Where the members of a cluster come to lie: springs along links, all push each other; always the same picture.
  function places(n, links, W, H) {
    const at = Array.from({ length: n }, (_, i) => ({ x: W / 2 + W / 3 * Math.cos(2 * Math.PI * i / n), y: H / 2 + H / 3 * Math.sin(2 * Math.PI * i / n) }))
    const want = Math.sqrt(W * H / Math.max(1, n)) * 0.75
    for (let step = 0; step < 250; step++) {
      const heat = 0.12 * want * (1 - step / 250), move = at.map(() => ({ x: 0, y: 0 }))
      for (let i = 0; i < n; i++) for (let k = i + 1; k < n; k++) {
        const dx = at[i].x - at[k].x, dy = at[i].y - at[k].y, d = Math.hypot(dx, dy) || 0.01, f = want * want / d / d
        move[i].x += dx * f; move[i].y += dy * f; move[k].x -= dx * f; move[k].y -= dy * f
      }
      for (const l of links) {
        const dx = at[l.a].x - at[l.b].x, dy = at[l.a].y - at[l.b].y, d = Math.hypot(dx, dy), f = d / want * Math.min(2, 0.4 + l.total / 10) / Math.max(1, Math.sqrt(2 * links.length / n))
        move[l.a].x -= dx * f; move[l.a].y -= dy * f; move[l.b].x += dx * f; move[l.b].y += dy * f
      }
      at.forEach((p, i) => {
        const d = Math.hypot(move[i].x, move[i].y) || 1, s = Math.min(d, heat * 8) / d
        p.x = Math.min(W - 24, Math.max(24, p.x + move[i].x * s)); p.y = Math.min(H - 24, Math.max(24, p.y + move[i].y * s))
      })
    }
    return at
  }
  // members: [{account, e, p, rung}], links: [{a, b, total, ...}]; open(account) on a click or Enter.
  function graph(members, links, here, open) {
    const W = 640, H = members.length > 12 ? 420 : 300, at = places(members.length, links, W, H)
    const svg = node('svg', { class: 'plot graph', viewBox: `0 0 ${W} ${H}`, role: 'group', 'aria-label': `${members.length} linked accounts, ${links.length} links` })
    for (const l of links) {
      const parts = ['address', 'payer', 'created', 'client', 'content', 'wrappers', 'overlap', 'presence'].filter(k => Math.abs(l[k]) >= 0.05)
      svg.append(node('line', { class: 'link', x1: at[l.a].x, y1: at[l.a].y, x2: at[l.b].x, y2: at[l.b].y, 'stroke-width': Math.min(6, 0.8 + l.total / 4).toFixed(1) },
        tip(`${members[l.a].account} and ${members[l.b].account}: ${l.total.toFixed(1)} nats (${parts.map(k => `${k} ${l[k].toFixed(1)}`).join(', ')})`)))
    }
    members.forEach((m, i) => {
      const r = 6 + Math.min(9, Math.log1p(m.requests || 0) * 1.2), kind = m.e >= 200 ? 'bad' : m.e >= 10 || m.p < 0.01 ? 'warn' : ''
      const g = node('g', { class: 'member ' + kind + (m.account === here ? ' here' : ''), tabindex: 0, role: 'button', 'aria-label': `${m.account}, p ${m.p}, e ${m.e}` },
        node('circle', { cx: at[i].x, cy: at[i].y, r }, tip(`${m.account}: ${m.requests} requests, p ${m.p}, e ${m.e}, ${m.rung || 'no rung'}`)))
      if (members.length <= 24) g.append(text(at[i].x, at[i].y - r - 4, m.account.length > 14 ? '…' + m.account.slice(-8) : m.account, { 'text-anchor': 'middle' }))
      g.addEventListener('click', () => open(m.account))
      g.addEventListener('keydown', event => { if (event.key === 'Enter') open(m.account) })
      svg.append(g)
    })
    return svg
  }
  return { line, histogram, bar, graph }
})()
