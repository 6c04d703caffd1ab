@echo off
setlocal EnableExtensions DisableDelayedExpansion
title Aozora
call :find_python
if not defined PYTHON_COMMAND goto no_python
rem First with a console, so that whatever keeps the window from opening can be read.
%PYTHON_COMMAND% "%~dp0bootstrap.py" gui --check
set "RESULT=%ERRORLEVEL%"
if not "%RESULT%"=="0" goto failed
start "" /D "%~dp0." "%~dp0.venv\Scripts\pythonw.exe" -P -m gui %*
exit /b 0

:failed
echo.
echo The window cannot open; the lines above say why.
pause
exit /b %RESULT%

:find_python
set "PYTHON_COMMAND="
call :try_python py -3
if not defined PYTHON_COMMAND call :try_python python
if not defined PYTHON_COMMAND call :try_python python3
exit /b 0

:try_python
%* -c "import sys" >nul 2>nul
if "%ERRORLEVEL%"=="0" set "PYTHON_COMMAND=%*"
exit /b 0

:no_python
echo Python was not found.
echo Install Python 3.12, 64-bit, from https://www.python.org/downloads/windows/
echo with "py launcher" ticked, then start setup.bat.
pause
exit /b 2
