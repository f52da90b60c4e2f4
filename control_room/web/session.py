"""A token becomes a cookie that no script can read; and who one is.

The page takes the token from the part of its address behind `#`, which no server and no log is ever told.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field

from .access import COOKIE, Access, Needs, Person
from .answers import LET_IN, SIGNING_IN, Answer

DAYS = 30
router = APIRouter(prefix="/api/session", tags=["session"])


class Token(BaseModel):
    """What one signs in with."""

    token: Annotated[str, Field(min_length=1, max_length=500)]


@router.post("", responses=SIGNING_IN)
def sign_in(request: Request, given: Token) -> Answer:
    """Let the browser keep the token."""
    access: Access = request.app.state.access
    person = access.who(given.token)
    if person is None:
        raise HTTPException(401, "this token is not known here")
    answer = Answer(person._asdict())
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, given.token, httponly=True, samesite="strict", secure=secure, max_age=DAYS * 86_400)
    return answer


@router.get("", responses=LET_IN)
def who(person: Annotated[Person, Depends(Needs("viewer"))]) -> Answer:
    """Who is signed in, and what they may do."""
    return Answer(person._asdict())


@router.delete("", responses=SIGNING_IN)
def sign_out() -> Answer:
    """Let the browser forget the token."""
    answer = Answer({})
    answer.delete_cookie(COOKIE)
    return answer
