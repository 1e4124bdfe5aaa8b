"""What a test did, in numbers."""

from durability.ledger import Ledger


def said(ledger: Ledger) -> str:
    return " ".join(f"{number} {what}," for what, number in sorted(ledger.counts.items()))


def tell(when: str, ledger: Ledger, lost: list[str]) -> str:
    return "\n".join([f"{when}: {said(ledger)}", *lost[:20]])
