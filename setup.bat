@echo off
setlocal EnableExtensions DisableDelayedExpansion
title Aozora setup
call :find_python
if not defined PYTHON_COMMAND goto no_python
%PYTHON_COMMAND% "%~dp0bootstrap.py" setup %*
set "RESULT=%ERRORLEVEL%"
echo.
if "%RESULT%"=="0" (echo Aozora is ready. Start it with start_gui.bat.) else (echo Setup did not finish; the lines above say why.)
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
echo with "py launcher" ticked, then start this file again.
pause
exit /b 2
