// Follow the end of a growing text only while the reader is at the end. A reader who scrolled up is left in peace.
//
// Any move upwards unpins, however small: if one within a margin still counted as "at the end", the next line would pull
// the reader back down in the middle of the wheel's turn. Only a move down to the end pins again. Our own moves are
// remembered at once, so that the scroll event that they cause later is not taken for the reader's.

const NEAR = 48

export function pinned(element: HTMLElement, onchange: (atEnd: boolean) => void) {
  let atEnd = true
  let lastTop = element.scrollTop
  let lastHeight = element.scrollHeight

  const set = (value: boolean) => {
    atEnd = value
    onchange(value)
  }
  const remember = () => {
    lastTop = element.scrollTop
    lastHeight = element.scrollHeight
  }
  const scrolled = () => {
    const near = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR
    const shrank = element.scrollHeight < lastHeight
    if (element.scrollTop < lastTop && !shrank) set(false)
    else if (near) set(true)
    remember()
  }
  const wheeled = (event: WheelEvent) => {
    if (event.deltaY < 0 && element.scrollTop > 0) set(false)
  }
  const toEnd = () => {
    element.scrollTop = element.scrollHeight
    remember()
    set(true)
  }
  const grown = () => {
    if (atEnd) toEnd()
    // What no longer overflows has no end to be away from.
    else if (element.scrollHeight <= element.clientHeight) set(true)
  }
  element.addEventListener('scroll', scrolled, { passive: true })
  element.addEventListener('wheel', wheeled, { passive: true })
  const sizes = new ResizeObserver(grown)
  sizes.observe(element)
  for (const child of element.children) sizes.observe(child)
  return {
    toEnd,
    destroy() {
      element.removeEventListener('scroll', scrolled)
      element.removeEventListener('wheel', wheeled)
      sizes.disconnect()
    },
  }
}
