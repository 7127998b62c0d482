// Enter while an input method composes Chinese confirms the candidate; it must not send the message.
//
// Three browsers, three orders: Chromium and Firefox send keydown with isComposing before compositionend; some input
// methods set key code 229 without isComposing; Safari sends compositionend first and then an ordinary-looking Enter
// keydown with key code 229, or, on some versions, none at all but within the same task. So: the event's flag, the
// code 229, our own flag, and a short quiet time after compositionend, each of which alone holds the message back.

export class CompositionGuard {
  #composing = false
  #endedAt = -Infinity

  start = () => {
    this.#composing = true
  }

  end = (event: CompositionEvent) => {
    this.#composing = false
    this.#endedAt = event.timeStamp
  }

  // True when this Enter belongs to the writer, not to the input method.
  sends(event: KeyboardEvent): boolean {
    if (event.key !== 'Enter' || event.shiftKey || event.altKey) return false
    if (event.isComposing || event.keyCode === 229 || this.#composing) return false
    return event.timeStamp - this.#endedAt > 30
  }
}
